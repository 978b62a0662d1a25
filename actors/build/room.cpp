#include "actors/build/room.hpp"

#include "store/files.hpp"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>

namespace coppice::actors {
namespace {

constexpr std::uint64_t drain_mark_bytes_max = 1024;
constexpr auto no_limit = std::numeric_limits<std::uint32_t>::max();

/// Builds of this reserve that fit into what is free above the floor, besides those that run.
std::uint32_t more(std::uint64_t free, std::uint64_t floor, std::uint64_t reserve, std::uint32_t running) {
  if (free < floor) return 0;
  if (reserve == 0) return no_limit;
  const auto all = (free - floor) / reserve;
  return all <= running ? 0 : static_cast<std::uint32_t>(std::min<std::uint64_t>(all - running, no_limit));
}

std::string shortage(const char* what, std::uint64_t free, std::uint64_t reserve, const char* reserve_setting,
                     std::uint64_t floor, const char* floor_setting) {
  return "has " + std::to_string(free) + " bytes of " + what + " left, and keeps " + std::to_string(reserve) +
         " for each build (limits.reserve." + reserve_setting + ") and " + std::to_string(floor) +
         " besides (limits.reserve." + floor_setting + ")";
}

} // namespace

room::fit room::fits(std::uint32_t running) const {
  if (!now_) return {};
  if (!now_->drained.empty()) return {0, "is drained: " + now_->drained};
  const auto memory = more(now_->memory_available_bytes, reserve_.memory_free_min, reserve_.memory_bytes, running);
  const auto disk = more(now_->disk_free_bytes, reserve_.disk_free_min, reserve_.disk_bytes, running);
  fit f{std::min(memory, disk), {}};
  f.short_of = disk <= memory ? shortage("disk", now_->disk_free_bytes, reserve_.disk_bytes, "disk_bytes",
                                         reserve_.disk_free_min, "disk_free_min")
                              : shortage("memory", now_->memory_available_bytes, reserve_.memory_bytes, "memory_bytes",
                                         reserve_.memory_free_min, "memory_free_min");
  return f;
}

expected<machine_room> measure_room(const std::vector<std::filesystem::path>& disks,
                                    const std::filesystem::path& drain_mark) {
  constexpr std::uint64_t kib = 1024;
  machine_room r;
  r.disk_free_bytes = std::numeric_limits<std::uint64_t>::max();
  std::ifstream in{"/proc/meminfo"};
  std::string name, unit;
  for (std::uint64_t n = 0; in >> name >> n && std::getline(in, unit);) {
    if (name == "MemTotal:") r.memory_bytes = n * kib;
    if (name == "MemAvailable:") r.memory_available_bytes = n * kib;
  }
  if (r.memory_available_bytes == 0) return fail(ec::io, "cannot read MemAvailable in /proc/meminfo");
  for (const auto& disk : disks) {
    struct ::statvfs s {};
    if (::statvfs(disk.c_str(), &s) < 0)
      return tl::unexpected(store::system_error(errno, "cannot ask the file system of " + disk.string()));
    r.disk_free_bytes = std::min<std::uint64_t>(r.disk_free_bytes, s.f_bavail * s.f_frsize);
  }
  auto mark = store::read_file(drain_mark, drain_mark_bytes_max);
  if (!mark && mark.error().code == ec::missing) return r;
  // a mark that cannot be read is there all the same
  r.drained = mark ? mark->substr(0, mark->find('\n')) : mark.error().what;
  if (r.drained.empty()) r.drained = "no reason was given";
  return r;
}

expected<void> set_drain_mark(const std::filesystem::path& drain_mark, bool drained, const std::string& why) {
  return drained ? store::replace_file(drain_mark, why + "\n") : store::remove_file(drain_mark);
}

} // namespace coppice::actors
