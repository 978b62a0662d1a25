#pragma once

#include "actors/settings.hpp"
#include "messages/pipeline.hpp"

#include <limits>
#include <string>
#include <vector>

/// Cores, memory and disk of a machine, and what builds reserve of them: WORKER_POOL and ALLOCATOR count alike.
namespace coppice::actors {

/// How a machine of so many CPUs shares itself out among `slots` builds; nothing of it is reserved yet. Memory and disk
/// that are not limited by the settings are what measurements say, and until then `unmeasured`.
machine_share share_of(const node_settings& s, std::uint32_t slots, std::uint32_t cpus);
inline constexpr auto unmeasured = std::numeric_limits<std::uint64_t>::max();

/// What a build reserves there: more if it requires certain features, and no core if it only waits for network or disk.
/// Nothing if the machine does not say how it shares itself out.
capacity reserved_by(const machine_share& of, const std::vector<std::string>& features, bool io_bound);

capacity operator+(const capacity& a, const capacity& b);
/// What remains of `a`; never less than nothing.
capacity operator-(const capacity& a, const capacity& b);
/// The smaller of each.
capacity least(const capacity& a, const capacity& b);
/// How many that take `each` fit into `left`.
std::uint32_t times(const capacity& left, const capacity& each);
/// Empty if `takes` fits into `left`; else what there is too little of, in words that follow the machine's name.
std::string too_little(const capacity& left, const capacity& all, const capacity& takes);

} // namespace coppice::actors
