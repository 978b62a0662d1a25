#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

/// Each target is one file here: it reads any bytes, and what they mean must have the properties it states.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size);

namespace coppice::fuzz {

/// Ends the program, so that the fuzzer keeps the input, unless it `holds`.
inline void must(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", property);
  std::abort();
}

inline std::string_view text_of(const std::uint8_t* bytes, std::size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

/// Takes the first byte off; 0 if there is none.
inline std::uint8_t first_of(std::string_view& text) {
  if (text.empty()) return 0;
  const auto first = static_cast<std::uint8_t>(text.front());
  text.remove_prefix(1);
  return first;
}

} // namespace coppice::fuzz
