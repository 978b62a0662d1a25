#include "nix/word.hpp"

#include <algorithm>

namespace coppice::nix {

namespace {

constexpr std::size_t number_bytes = 8;

std::uint64_t load(std::string_view bytes) {
  std::uint64_t number = 0;
  for (std::size_t i = number_bytes; i-- > 0;)
    number = number << 8 | static_cast<unsigned char>(bytes[i]);
  return number;
}

expected<std::size_t> check_size(std::uint64_t size, std::size_t bytes_max) {
  if (size > bytes_max) return fail("a word of ", size, " bytes, more than ", bytes_max);
  return static_cast<std::size_t>(size);
}

/// `bytes` is length, text and padding.
expected<std::optional<std::string_view>> text_of(std::string_view bytes, std::size_t size) {
  if (bytes.find_first_not_of('\0', number_bytes + size) != bytes.npos) return fail("padding that is not zero");
  return bytes.substr(number_bytes, size);
}

} // namespace

void append_number(std::string& out, std::uint64_t number) {
  for (std::size_t i = 0; i < number_bytes; ++i)
    out += static_cast<char>(number >> 8 * i & 0xff);
}

void append_word(std::string& out, std::string_view word) {
  append_number(out, word.size());
  out += word;
  out.append(padding_after(word.size()), '\0');
}

/// Whether `size` bytes are held, after taking what is missing from `chunk`.
bool word_reader::fill(std::string_view& chunk, std::size_t size) {
  if (held_.size() < size) {
    const auto count = std::min(size - held_.size(), chunk.size());
    held_ += chunk.substr(0, count);
    chunk.remove_prefix(count);
  }
  return held_.size() >= size;
}

std::optional<std::uint64_t> word_reader::number(std::string_view& chunk) {
  if (complete_) held_.clear();
  complete_ = fill(chunk, number_bytes);
  if (!complete_) return std::nullopt;
  return load(held_);
}

expected<std::optional<std::string_view>> word_reader::word(std::string_view& chunk, std::size_t bytes_max) {
  if (complete_) held_.clear();
  complete_ = false;
  const bool whole_number = held_.empty() && chunk.size() >= number_bytes;
  if (!whole_number && !fill(chunk, number_bytes)) return std::nullopt;
  const auto size = check_size(load(whole_number ? chunk : held_), bytes_max);
  if (!size) return tl::unexpected<error>(size.error());
  const auto total = number_bytes + *size + padding_after(*size);
  if (whole_number && chunk.size() >= total) { // the usual case: nothing is copied
    const auto bytes = chunk.substr(0, total);
    chunk.remove_prefix(total);
    return text_of(bytes, *size);
  }
  if (!fill(chunk, total)) return std::nullopt;
  complete_ = true;
  return text_of(held_, *size);
}

} // namespace coppice::nix
