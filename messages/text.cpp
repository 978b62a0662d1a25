#include "messages/text.hpp"

namespace coppice::text {

std::string quoted(std::string_view s) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out = "\"";
  for (char c : s.substr(0, string_bytes_max)) {
    auto b = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (b >= 0x20 && b < 0x7f) {
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += "\\x";
      out += digits[b >> 4];
      out += digits[b & 15];
    }
  }
  out += s.size() > string_bytes_max ? "…\"" : "\"";
  return out;
}

} // namespace coppice::text
