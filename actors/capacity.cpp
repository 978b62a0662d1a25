#include "actors/capacity.hpp"

#include <algorithm>

namespace coppice::actors {

machine_share share_of(const node_settings& s, std::uint32_t slots, std::uint32_t cpus) {
  slots = std::max(1u, slots);
  cpus = std::max(1u, cpus);
  machine_share m;
  // whoever wants more builds at once than there are CPUs has said so by max_jobs
  m.all.cores = s.machine.cores > 0 ? s.machine.cores : std::max(cpus, std::max(1u, s.cores) * slots);
  m.all.memory_bytes = s.machine.memory_bytes > 0 ? s.machine.memory_bytes : unmeasured;
  m.all.disk_bytes = s.machine.disk_bytes > 0 ? s.machine.disk_bytes : unmeasured;
  const auto even = std::max(1u, m.all.cores / slots);
  m.each.cores = std::min(m.all.cores, s.cores > 0 ? s.cores : even);
  m.each.memory_bytes = s.limits.reserve.memory_bytes;
  m.each.disk_bytes = s.limits.reserve.disk_bytes;
  for (const auto& f : s.machine.reserve) {
    feature_reserve r{f.feature, m.each};
    r.takes.cores = f.all_cores ? m.all.cores : std::clamp(f.cores, m.each.cores, std::max(m.each.cores, m.all.cores));
    r.takes.memory_bytes = std::max(f.memory_bytes, m.each.memory_bytes);
    r.takes.disk_bytes = std::max(f.disk_bytes, m.each.disk_bytes);
    m.special.push_back(std::move(r));
  }
  m.left = m.all;
  return m;
}

capacity reserved_by(const machine_share& of, const std::vector<std::string>& features, bool io_bound) {
  if (of.all.cores == 0) return {};
  auto takes = of.each;
  for (const auto& s : of.special) {
    if (std::find(features.begin(), features.end(), s.feature) == features.end()) continue;
    takes.cores = std::max(takes.cores, s.takes.cores);
    takes.memory_bytes = std::max(takes.memory_bytes, s.takes.memory_bytes);
    takes.disk_bytes = std::max(takes.disk_bytes, s.takes.disk_bytes);
  }
  if (io_bound) takes.cores = 0;
  return takes;
}

capacity operator+(const capacity& a, const capacity& b) {
  return {a.cores + b.cores, a.memory_bytes + b.memory_bytes, a.disk_bytes + b.disk_bytes};
}

capacity operator-(const capacity& a, const capacity& b) {
  return {a.cores - std::min(a.cores, b.cores), a.memory_bytes - std::min(a.memory_bytes, b.memory_bytes),
          a.disk_bytes - std::min(a.disk_bytes, b.disk_bytes)};
}

capacity least(const capacity& a, const capacity& b) {
  return {std::min(a.cores, b.cores), std::min(a.memory_bytes, b.memory_bytes), std::min(a.disk_bytes, b.disk_bytes)};
}

std::uint32_t times(const capacity& left, const capacity& each) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();
  auto n = most;
  if (each.cores > 0) n = std::min<std::uint64_t>(n, left.cores / each.cores);
  if (each.memory_bytes > 0) n = std::min(n, left.memory_bytes / each.memory_bytes);
  if (each.disk_bytes > 0) n = std::min(n, left.disk_bytes / each.disk_bytes);
  return static_cast<std::uint32_t>(n);
}

std::string too_little(const capacity& left, const capacity& all, const capacity& takes) {
  constexpr std::uint64_t mib = 1 << 20;
  if (takes.cores > left.cores)
    return "has " + std::to_string(left.cores) + " of " + std::to_string(all.cores) +
           " cores left, and this build takes " + std::to_string(takes.cores);
  for (auto [has, wants, what] : {std::tuple{left.memory_bytes, takes.memory_bytes, " MiB of memory"},
                                  {left.disk_bytes, takes.disk_bytes, " MiB of disk"}})
    if (wants > has)
      return "has " + std::to_string(has / mib) + what + " left, and this build takes " + std::to_string(wants / mib);
  return {};
}

} // namespace coppice::actors
