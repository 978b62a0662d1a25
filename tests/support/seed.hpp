#pragma once

#include <cstdint>
#include <cstdlib>

namespace coppice::test {

/// The seed of a randomised test: $COPPICE_SEED, else `otherwise`. Such tests print it (Catch's CAPTURE).
inline std::uint64_t seed_or(std::uint64_t otherwise) {
  const char* text = std::getenv("COPPICE_SEED");
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

} // namespace coppice::test
