#pragma once

#include <cstdint>

namespace coppice::sim {

/// From now on the ids that this process draws (rt::random_bytes, and all else that asks libsodium) follow from the
/// seed: they are ordered by here and there, so a run would not be repeated without.
void seed_random_ids(std::uint64_t seed);

} // namespace coppice::sim
