#include "tests/sim/seeded_random.hpp"

#include <sodium.h>

#include <random>

namespace coppice::sim {
namespace {

std::mt19937_64 engine; // simulations have one thread

std::uint32_t draw() {
  return static_cast<std::uint32_t>(engine() >> 32);
}

void fill(void* into, std::size_t size) {
  auto* bytes = static_cast<unsigned char*>(into);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<unsigned char>(engine() >> 56);
}

} // namespace

void seed_random_ids(std::uint64_t seed) {
  static randombytes_implementation seeded{[] { return "seeded"; }, &draw, nullptr, nullptr, &fill, nullptr};
  randombytes_set_implementation(&seeded);
  engine.seed(seed);
}

} // namespace coppice::sim
