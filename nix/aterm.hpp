#pragma once

#include "nix/derivation.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace coppice::nix {

/// Appends `text` in ATerm quotes and escapes to `out`.
void append_aterm_string(std::string& out, std::string_view text);

/// Reads ATerm pieces one after the other; every failure says at which byte.
class aterm_cursor {
public:
  explicit aterm_cursor(std::string_view text) : text_(text) {}

  /// Whether `word` comes next.
  bool starts_with(std::string_view word) const { return text_.substr(at_).starts_with(word); }

  /// Reads exactly `word`.
  expected<void> expect(std::string_view word);

  /// Reads a quoted string, unescaped, into `out`.
  expected<void> string(std::string& out);

  /// Reads "[…]" by calling `read_one` for each element.
  template <class ReadOne>
  expected<void> list(ReadOne read_one) {
    if (auto opened = expect("["); !opened) return opened;
    for (bool first = true; !starts_with("]"); first = false) {
      if (!first)
        if (auto comma = expect(","); !comma) return comma;
      const auto start = at_;
      if (auto read = read_one(); !read) return at(start, read);
    }
    return expect("]");
  }

  /// Fails unless nothing is left.
  expected<void> end() const;

private:
  expected<void> at(std::size_t start, const expected<void>& failed) const;

  std::string_view text_;
  std::size_t at_ = 0;
};

/// Writes the parts that a .drv file and the text hashed for a hash modulo have in common.
class aterm_writer {
public:
  aterm_writer(std::string& out, std::string_view store_dir) : out_(out), store_dir_(store_dir) {}

  void open(std::string_view word) { out_ += word; }
  void path(const store_path& path);

  template <class List, class WriteOne>
  void list(const List& all, WriteOne write_one) {
    char separator = '[';
    for (const auto& one : all) {
      out_ += separator;
      write_one(one);
      separator = ',';
    }
    out_ += all.empty() ? "[]" : "]";
  }

  template <class List>
  void strings(const List& all) {
    list(all, [&](const std::string& one) { append_aterm_string(out_, one); });
  }

  /// The outputs and a comma; their paths are empty if `mask`.
  void outputs(const derivation& drv, bool mask);

  /// All after the input derivations and their comma; with `mask`, variables named like an output are empty.
  void rest(const derivation& drv, bool mask);

private:
  std::string& out_;
  std::string_view store_dir_;
};

} // namespace coppice::nix
