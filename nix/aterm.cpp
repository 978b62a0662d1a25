#include "nix/aterm.hpp"

#include <array>

namespace coppice::nix {

namespace {

/// The letter that stands for a byte after a backslash, or 0 for a byte that stands for itself.
constexpr auto escapes = [] {
  std::array<char, 256> letters{};
  letters['"'] = '"';
  letters['\\'] = '\\';
  letters['\n'] = 'n';
  letters['\r'] = 'r';
  letters['\t'] = 't';
  return letters;
}();

char unescaped(char c) {
  switch (c) {
  case 'n': return '\n';
  case 'r': return '\r';
  case 't': return '\t';
  default: return c;
  }
}

} // namespace

void append_aterm_string(std::string& out, std::string_view text) {
  out += '"';
  std::size_t plain = 0; // start of what needs no escape
  for (std::size_t i = 0; i < text.size(); ++i)
    if (const auto letter = escapes[static_cast<unsigned char>(text[i])]; letter != '\0') {
      out.append(text, plain, i - plain);
      out += '\\';
      out += letter;
      plain = i + 1;
    }
  out.append(text, plain);
  out += '"';
}

expected<void> aterm_cursor::expect(std::string_view word) {
  if (!starts_with(word)) {
    const auto found = text_.substr(at_, word.size());
    if (found.empty()) return fail("expected '", word, "' at byte ", at_, ", found the end");
    return fail("expected '", word, "' at byte ", at_, ", found ", quoted(found));
  }
  at_ += word.size();
  return {};
}

expected<void> aterm_cursor::string(std::string& out) {
  if (auto opened = expect("\""); !opened) return opened;
  out.clear();
  const auto start = at_;
  for (;;) {
    const auto stop = text_.find_first_of("\"\\", at_);
    if (stop == text_.npos || stop + 1 >= text_.size() + (text_[stop] == '"'))
      return fail("the string at byte ", start, " does not end");
    out.append(text_, at_, stop - at_);
    at_ = stop + 1;
    if (text_[stop] == '"') return {};
    out += unescaped(text_[at_++]);
  }
}

expected<void> aterm_cursor::end() const {
  if (at_ != text_.size()) return fail(text_.size() - at_, " bytes too many at byte ", at_);
  return {};
}

expected<void> aterm_cursor::at(std::size_t start, const expected<void>& failed) const {
  if (failed.error().what.find(" at byte ") != std::string::npos) return failed;
  return fail(failed.error().what, ", at byte ", start);
}

void aterm_writer::path(const store_path& path) {
  // Neither a store directory nor a store path holds what needs an escape.
  out_ += '"';
  out_ += store_dir_;
  out_ += '/';
  out_ += path.base_name();
  out_ += '"';
}

void aterm_writer::outputs(const derivation& drv, bool mask) {
  list(drv.outputs, [&](const auto& entry) {
    const auto& [name, output] = entry;
    out_ += '(';
    append_aterm_string(out_, name);
    out_ += ',';
    if (output.path && !mask)
      path(*output.path);
    else
      out_ += "\"\"";
    out_ += ',';
    append_aterm_string(out_, output.hash_algo);
    out_ += ',';
    append_aterm_string(out_, output.hash);
    out_ += ')';
  });
  out_ += ',';
}

void aterm_writer::rest(const derivation& drv, bool mask) {
  list(drv.input_srcs, [&](const store_path& source) { path(source); });
  out_ += ',';
  append_aterm_string(out_, drv.system);
  out_ += ',';
  append_aterm_string(out_, drv.builder);
  out_ += ',';
  strings(drv.args);
  out_ += ',';
  list(drv.env, [&](const auto& variable) {
    out_ += '(';
    append_aterm_string(out_, variable.first);
    out_ += ',';
    if (mask && drv.outputs.contains(variable.first))
      out_ += "\"\"";
    else
      append_aterm_string(out_, variable.second);
    out_ += ')';
  });
  out_ += ')';
}

} // namespace coppice::nix
