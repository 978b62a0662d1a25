#include "nix/derivation_view.hpp"

#include "nix/aterm.hpp"

#include <algorithm>
#include <array>
#include <iterator>

namespace coppice::nix {

namespace {

/// What a byte may be in a string of the text, as bits.
enum : std::uint8_t { quote = 1, backslash = 2, must_be_escaped = 4 };

constexpr auto bytes = [] {
  std::array<std::uint8_t, 256> kinds{};
  kinds['"'] = quote;
  kinds['\\'] = backslash;
  kinds['\n'] = kinds['\r'] = kinds['\t'] = must_be_escaped;
  return kinds;
}();

bool is_base_name(std::string_view text) {
  return text.size() > hash_part_chars && text[hash_part_chars] == '-' &&
         std::all_of(text.begin(), text.begin() + hash_part_chars, is_base32) &&
         check_store_name(text.substr(hash_part_chars + 1));
}

/// The string that stands between two quotes as `raw`.
std::string unescaped(std::string_view raw) {
  std::string out;
  out.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      out += raw[i];
      continue;
    }
    ++i;
    out += raw[i] == 'n' ? '\n' : raw[i] == 'r' ? '\r' : raw[i] == 't' ? '\t' : raw[i];
  }
  return out;
}

bool ascends(std::string_view raw, std::string_view next) {
  constexpr auto none = std::string_view::npos;
  if (raw.find('\\') == none && next.find('\\') == none) return raw < next;
  return unescaped(raw) < unescaped(next);
}

} // namespace

/// Goes through the text once; every function is false for what is not canonical.
class derivation_view::scanner {
public:
  scanner(derivation_view& into, std::string_view store_dir)
      : into_(into), text_(into.text_), store_dir_(store_dir), prefix_('"' + std::string{store_dir} + '/') {}

  bool read() {
    if (!check_store_name(into_.head_.name + ".drv") || !word("Derive(") || !read_outputs() || !word(",")) return false;
    into_.inputs_begin_ = at_;
    if (!list([&] { return read_input(); })) return false;
    into_.inputs_end_ = at_;
    if (!word(",") || !list([&] { return read_source(); })) return false;
    if (!word(",") || !plain_string(into_.head_.system) || !word(",") || !plain_string(into_.head_.builder))
      return false;
    std::string_view argument;
    if (!word(",") || !list([&] { return string(argument); }) || !word(",")) return false;
    into_.env_begin_ = at_;
    std::string_view last;
    return list([&] { return read_variable(last); }) && word(")") && at_ == text_.size() &&
           check_output_kinds(into_.head_).has_value();
  }

private:
  bool word(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }

  template <class ReadOne>
  bool list(ReadOne read_one) {
    if (!word("[")) return false;
    if (word("]")) return true;
    do
      if (!read_one()) return false;
    while (word(","));
    return word("]");
  }

  /// What stands between the quotes.
  bool string(std::string_view& raw) {
    if (!word("\"")) return false;
    const auto start = at_;
    for (;;) {
      while (at_ < text_.size() && bytes[static_cast<unsigned char>(text_[at_])] == 0)
        ++at_;
      if (at_ == text_.size() || bytes[static_cast<unsigned char>(text_[at_])] == must_be_escaped) return false;
      if (text_[at_] == '"') break;
      ++at_; // the backslash
      if (at_ == text_.size() || std::string_view{"\"\\nrt"}.find(text_[at_]) == std::string_view::npos) return false;
      ++at_;
    }
    raw = text_.substr(start, at_ - start);
    ++at_;
    return true;
  }

  bool plain_string(std::string& out) {
    std::string_view raw;
    if (!string(raw)) return false;
    out = unescaped(raw);
    return true;
  }

  bool path(std::string_view& base_name) {
    std::string_view raw;
    if (!text_.substr(at_).starts_with(prefix_) || !string(raw)) return false;
    base_name = raw.substr(prefix_.size() - 1);
    return is_base_name(base_name);
  }

  bool read_outputs() {
    std::string last;
    return list([&] {
      std::string name;
      derivation_output output;
      if (!word("(") || !plain_string(name) || name.empty() || name <= last || !word(",")) return false;
      if (!word("\"\"")) {
        std::string_view base_name;
        if (!path(base_name)) return false;
        output.path = *store_path::from_base_name(base_name);
      }
      if (!word(",") || !plain_string(output.hash_algo) || !word(",") || !plain_string(output.hash) || !word(")"))
        return false;
      if (!check_store_name(output_path_name(into_.head_.name, name)) || !check_output(output)) return false;
      last = name;
      into_.head_.outputs.emplace(std::move(name), std::move(output));
      return true;
    });
  }

  bool read_input() {
    input one;
    if (!word("(") || !path(one.base_name) || !one.base_name.ends_with(".drv") || !word(",")) return false;
    if (!into_.inputs_.empty() && into_.inputs_.back().base_name >= one.base_name) return false;
    const auto start = at_;
    std::string_view last, name;
    bool first = true;
    if (!list([&] {
          if (!string(name) || (!first && !ascends(last, name))) return false;
          last = name;
          first = false;
          return true;
        }))
      return false;
    one.wanted = text_.substr(start, at_ - start);
    into_.inputs_.push_back(one);
    return word(")");
  }

  bool read_source() {
    std::string_view base_name;
    if (!path(base_name) || (!into_.sources_.empty() && into_.sources_.back() >= base_name)) return false;
    into_.sources_.push_back(base_name);
    return true;
  }

  bool read_variable(std::string_view& last) {
    std::string_view key, value;
    const bool first = text_[at_ - 1] == '[';
    if (!word("(") || !string(key) || (!first && !ascends(last, key)) || !word(",") || !string(value)) return false;
    last = key;
    if (into_.head_.outputs.contains(key)) {
      into_.own_variables_.push_back(value);
      into_.head_.env.emplace(key, unescaped(value));
    }
    return word(")");
  }

  derivation_view& into_;
  std::string_view text_;
  std::string_view store_dir_;
  std::string prefix_; ///< of a quoted path
  std::size_t at_ = 0;
};

std::optional<derivation_view> derivation_view::read(std::string_view aterm, std::string name,
                                                     std::string_view store_dir) {
  std::optional<derivation_view> view{std::in_place};
  view->text_ = aterm;
  view->head_.name = std::move(name);
  if (!scanner{*view, store_dir}.read()) return std::nullopt;
  return view;
}

std::optional<std::string> derivation_view::variable(std::string_view name) const {
  // No string holds a quote after an opening parenthesis: it would be escaped.
  const auto start = "(\"" + std::string{name} + "\",\"";
  const auto found = text_.find(start, env_begin_);
  if (found == text_.npos) return std::nullopt;
  const auto begin = found + start.size();
  auto end = begin;
  while (text_[end] != '"')
    end += text_[end] == '\\' ? 2 : 1;
  return unescaped(text_.substr(begin, end - begin));
}

store_path derivation_view::path(std::string_view store_dir) const {
  std::vector<std::string_view> drvs, references;
  drvs.reserve(inputs_.size());
  for (const auto& one : inputs_)
    drvs.push_back(one.base_name);
  references.reserve(drvs.size() + sources_.size());
  std::set_union(drvs.begin(), drvs.end(), sources_.begin(), sources_.end(), std::back_inserter(references));
  std::string type = "text";
  type.reserve(128 * (references.size() + 1));
  for (const auto reference : references) {
    type += ':';
    type += store_dir;
    type += '/';
    type += reference;
  }
  return *make_store_path(type, sha256(text_), head_.name + ".drv", store_dir); // read() has checked the name
}

void derivation_view::append_masked_before(std::string& out) const {
  aterm_writer to{out, {}};
  to.open("Derive(");
  to.outputs(head_, true);
}

void derivation_view::append_masked_after(std::string& out) const {
  auto rest = after_inputs();
  for (const auto value : own_variables_) {
    const auto before = static_cast<std::size_t>(value.data() - rest.data());
    out += rest.substr(0, before);
    rest.remove_prefix(before + value.size());
  }
  out += rest;
}

} // namespace coppice::nix
