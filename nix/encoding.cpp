#include "nix/hash.hpp"

#include <sodium.h>

#include <algorithm>

namespace coppice::nix {

namespace {

constexpr std::string_view base32_alphabet = "0123456789abcdfghijklmnpqrsvwxyz";
constexpr std::uint8_t no_digit = 255;

constexpr std::array<std::uint8_t, 256> make_base32_digits() {
  std::array<std::uint8_t, 256> digits{};
  digits.fill(no_digit);
  for (std::size_t i = 0; i < base32_alphabet.size(); ++i)
    digits[static_cast<unsigned char>(base32_alphabet[i])] = static_cast<std::uint8_t>(i);
  return digits;
}

constexpr auto base32_digits = make_base32_digits();

std::uint8_t base16_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<std::uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<std::uint8_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<std::uint8_t>(c - 'A' + 10);
  return no_digit;
}

} // namespace

bool is_base32(char c) {
  return base32_digits[static_cast<unsigned char>(c)] != no_digit;
}

std::string base16_encode(std::span<const std::uint8_t> bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out(bytes.size() * 2, '\0');
  auto* to = out.data();
  for (const auto byte : bytes) {
    *to++ = digits[byte >> 4];
    *to++ = digits[byte & 15];
  }
  return out;
}

expected<std::vector<std::uint8_t>> base16_decode(std::string_view text) {
  if (text.size() % 2 != 0) return fail("cannot decode base 16 ", quoted(text), ": odd length");
  std::vector<std::uint8_t> out(text.size() / 2);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto high = base16_digit(text[2 * i]), low = base16_digit(text[2 * i + 1]);
    if (high == no_digit || low == no_digit)
      return fail("cannot decode base 16 ", quoted(text), ": no digit near character ", 2 * i);
    out[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return out;
}

std::string base32_encode(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return {};
  const auto length = (bytes.size() * 8 - 1) / 5 + 1;
  std::string out(length, '0');
  for (std::size_t n = 0; n < length; ++n) {
    const auto bit = n * 5, byte = bit / 8, shift = bit % 8;
    unsigned digit = bytes[byte] >> shift;
    if (byte + 1 < bytes.size()) digit |= static_cast<unsigned>(bytes[byte + 1]) << (8 - shift);
    out[length - 1 - n] = base32_alphabet[digit & 31];
  }
  return out;
}

expected<std::vector<std::uint8_t>> base32_decode(std::string_view text) {
  std::vector<std::uint8_t> out(text.size() * 5 / 8);
  if (!text.empty() && (out.empty() || (out.size() * 8 - 1) / 5 + 1 != text.size()))
    return fail("cannot decode base 32 ", quoted(text), ": no number of bytes gives ", text.size(), " characters");
  for (std::size_t n = 0; n < text.size(); ++n) {
    const unsigned digit = base32_digits[static_cast<unsigned char>(text[text.size() - 1 - n])];
    if (digit == no_digit)
      return fail("cannot decode base 32 ", quoted(text), ": no digit at character ", text.size() - 1 - n);
    const auto bit = n * 5, byte = bit / 8, shift = bit % 8;
    out[byte] = static_cast<std::uint8_t>(out[byte] | digit << shift);
    const unsigned rest = digit >> (8 - shift);
    if (byte + 1 < out.size())
      out[byte + 1] = static_cast<std::uint8_t>(rest);
    else if (rest != 0)
      return fail("cannot decode base 32 ", quoted(text), ": surplus bits are not zero");
  }
  return out;
}

std::string base64_encode(std::span<const std::uint8_t> bytes) {
  std::string out(sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(out.data(), out.size(), bytes.data(), bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  out.pop_back(); // the terminating NUL
  return out;
}

expected<std::vector<std::uint8_t>> base64_decode(std::string_view text) {
  std::vector<std::uint8_t> out(text.size() / 4 * 3 + 3);
  std::size_t length = 0;
  if (sodium_base642bin(out.data(), out.size(), text.data(), text.size(), nullptr, &length, nullptr,
                        sodium_base64_VARIANT_ORIGINAL) != 0)
    return fail("cannot decode base 64 text of ", text.size(), " characters"); // it may be a secret: not quoted
  out.resize(length);
  return out;
}

} // namespace coppice::nix
