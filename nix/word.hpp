#pragma once

#include "nix/error.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace coppice::nix {

/// Appends a number as NARs and Nix's protocols have it: 8 bytes, little-endian.
void append_number(std::string& out, std::uint64_t number);

/// Appends a word as they have it: its length as a number, its bytes, zero bytes up to a multiple of 8.
void append_word(std::string& out, std::string_view word);

/// Zero bytes that follow `size` bytes of a word.
constexpr std::size_t padding_after(std::uint64_t size) {
  return static_cast<std::size_t>((8 - size % 8) % 8);
}

/// Reads numbers and words from chunks that may end anywhere; holds no more than one word.
class word_reader {
public:
  /// The next number, taken from the front of `chunk`; none if the chunk ends before it does.
  std::optional<std::uint64_t> number(std::string_view& chunk);

  /// The next word, valid until the next call; none if the chunk ends before it does. Fails for more than `bytes_max`
  /// bytes, before any is held, and for padding that is not zero.
  expected<std::optional<std::string_view>> word(std::string_view& chunk, std::size_t bytes_max);

  /// Whether part of a number or word is held.
  bool in_word() const { return !complete_ && !held_.empty(); }

private:
  bool fill(std::string_view& chunk, std::size_t size);
  std::string held_;
  bool complete_ = false;
};

} // namespace coppice::nix
