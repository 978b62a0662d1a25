#include "messages/utf8.hpp"

#include <algorithm>
#include <array>

namespace coppice {

namespace {

/// Bytes of the terminal sequence at the beginning of `s`, which starts with ESC.
std::size_t sequence_bytes(std::string_view s) {
  if (s.size() < 2) return 1;
  if (s[1] == '[') {
    const auto* last = std::find_if(s.begin() + 2, s.end(), [](char c) { return c < 0x20 || c > 0x3f; });
    const bool ended = last != s.end() && *last >= 0x40 && *last <= 0x7e;
    return static_cast<std::size_t>(last - s.begin()) + (ended ? 1 : 0);
  }
  if (s[1] == ']') {
    const auto end = s.find_first_of("\a\033", 2);
    if (end == s.npos) return s.size();
    return s[end] == '\a' ? end + 1 : std::min(end + 2, s.size());
  }
  return 2;
}

} // namespace

character first_of(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const std::size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < size) return {};
  auto code = static_cast<char32_t>(lead & (0xffu >> (size + 1)));
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = (code << 6) | (byte(i) & 0x3fu);
  }
  constexpr std::array<char32_t, 5> least{0, 0, 0x80, 0x800, 0x10000};
  if (code < least[size] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return {};
  return {code, size, true};
}

bool is_control(char32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x2028 && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069);
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const auto c = first_of(text);
    if (!c.valid) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

bool is_printable(std::string_view text) {
  while (!text.empty()) {
    const auto c = first_of(text);
    if (!c.valid || is_control(c.code)) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

std::string cleaned(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    const auto c = first_of(bytes);
    auto taken = c.bytes;
    if (!c.valid)
      out += "\xef\xbf\xbd";
    else if (c.code == 0x1b)
      taken = sequence_bytes(bytes);
    else if (c.code == '\t')
      out += ' ';
    else if (!is_control(c.code))
      out += bytes.substr(0, taken);
    bytes.remove_prefix(taken);
  }
  return out;
}

} // namespace coppice
