#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/// Untrusted bytes as text: what is UTF-8, and what may go to a terminal. Pure.
namespace coppice {

/// One character of a text; `valid` is false for one byte that begins no UTF-8 sequence (overlong forms and surrogates
/// are none).
struct character {
  char32_t code = 0;
  std::size_t bytes = 1;
  bool valid = false;
};

/// The first character of `text`, which is not empty.
character first_of(std::string_view text);

/// Control characters, and what ends a line or turns the direction of writing.
bool is_control(char32_t code);

bool is_utf8(std::string_view text);

/// True for UTF-8 without control characters.
bool is_printable(std::string_view text);

/// `bytes` without control characters and terminal sequences, tabs as a space, and U+FFFD for each byte that is no
/// UTF-8.
std::string cleaned(std::string_view bytes);

} // namespace coppice
