#include "nix/error.hpp"

#include <cstddef>

namespace coppice::nix {

std::string quoted(std::string_view bytes) {
  constexpr std::size_t shown_max = 80;
  constexpr char digits[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : bytes.substr(0, shown_max)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      if (c == '\'' || c == '\\') out += '\\';
      out += c;
    }
  }
  out += bytes.size() > shown_max ? "…'" : "'";
  return out;
}

} // namespace coppice::nix
