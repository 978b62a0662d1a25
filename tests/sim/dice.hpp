#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>

namespace coppice::sim {

/// All chance of a simulation comes from these: equal seeds give equal throws.
class dice {
public:
  explicit dice(std::uint64_t seed) : engine_(seed) {}
  /// One of 0 … n-1; n is at least 1.
  std::uint64_t below(std::uint64_t n) { return engine_() % n; }
  std::uint64_t between(std::uint64_t least, std::uint64_t most) { return least + below(most - least + 1); }
  bool chance(double p) { return static_cast<double>(engine_() >> 11) < p * 0x1p53; }
  /// In steps of a microsecond.
  std::chrono::nanoseconds between(std::chrono::nanoseconds least, std::chrono::nanoseconds most) {
    const auto span = std::chrono::duration_cast<std::chrono::microseconds>(most - least).count();
    return least + std::chrono::microseconds{below(static_cast<std::uint64_t>(span) + 1)};
  }
  /// Of a container that is not empty.
  template <class Container>
  auto& one_of(Container& all) {
    return *std::next(all.begin(), static_cast<std::ptrdiff_t>(below(all.size())));
  }
  /// For dice of somebody's own, whose throws do not depend on how often others throw.
  std::uint64_t seed() { return engine_(); }

private:
  std::mt19937_64 engine_;
};

} // namespace coppice::sim
