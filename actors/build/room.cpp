#include "actors/build/room.hpp"

#include "store/files.hpp"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <thread>

namespace coppice::actors {
namespace {

constexpr std::uint64_t drain_mark_bytes_max = 1024;

std::string shortage(const char* what, std::uint64_t free, std::uint64_t reserve, const char* reserve_setting,
                     std::uint64_t floor, const char* floor_setting) {
  return "has " + std::to_string(free) + " bytes of " + what + " left, and keeps " + std::to_string(reserve) +
         " for each build (limits.reserve." + reserve_setting + ") and " + std::to_string(floor) +
         " besides (limits.reserve." + floor_setting + ")";
}

/// The percentage behind "some avg10=" or "full avg10="; none if the file or the line is not there.
std::optional<std::uint32_t> stalled(const std::filesystem::path& file, std::string_view kind) {
  std::ifstream in{file};
  for (std::string word, value; in >> word >> value; std::getline(in, word))
    if (word == kind && value.starts_with("avg10=")) {
      const auto number = std::strtod(value.c_str() + 6, nullptr); // LC_NUMERIC is C: nobody sets a locale
      return static_cast<std::uint32_t>(std::clamp(number, 0.0, 100.0));
    }
  return {};
}

} // namespace

void pressure_door::on_measured(const machine_pressure& now) {
  struct gauge {
    std::uint32_t is, limit;
    const char *words, *setting;
  };
  const gauge all[] = {
      {now.memory, limits_.memory, "% of the time nothing gets on for want of memory", "memory"},
      {now.io, limits_.io, "% of the time nothing gets on for want of the disks", "io"},
      {now.cpu, limits_.cpu, "% of the time something waits for a CPU", "cpu"},
      {now.load, limits_.load, "/100 tasks for each CPU want to run", "load"},
  };
  const auto closes_at = shut_.empty() ? 100 : open_percent;
  shut_.clear();
  for (const auto& g : all)
    if (g.limit > 0 && std::uint64_t{g.is} * 100 >= std::uint64_t{g.limit} * closes_at) {
      shut_ = "is under pressure: " + std::to_string(g.is) + g.words + " (limits.pressure." + g.setting + " = " +
              std::to_string(g.limit) + ")";
      return;
    }
}

machine_share room::share(const capacity& reserved) const {
  auto s = share_;
  if (!now_) {
    s.left = {};
    return s;
  }
  const capacity measured{
      s.all.cores, now_->memory_available_bytes - std::min(now_->memory_available_bytes, floors_.memory_free_min),
      now_->disk_free_bytes - std::min(now_->disk_free_bytes, floors_.disk_free_min)};
  s.all = least(s.all, {s.all.cores, now_->memory_bytes, unmeasured});
  s.left = least(s.all, measured) - reserved;
  return s;
}

room::fit room::fits(const capacity& reserved, const capacity& each) const {
  if (!now_) return {};
  if (!now_->drained.empty()) return {0, "is drained: " + now_->drained};
  if (!door_.shut().empty()) return {0, door_.shut()};
  if (now_->disk_free_bytes < floors_.disk_free_min)
    return {0, shortage("disk", now_->disk_free_bytes, each.disk_bytes, "disk_bytes", floors_.disk_free_min,
                        "disk_free_min")};
  if (now_->memory_available_bytes < floors_.memory_free_min)
    return {0, shortage("memory", now_->memory_available_bytes, each.memory_bytes, "memory_bytes",
                        floors_.memory_free_min, "memory_free_min")};
  const auto s = share(reserved);
  fit f{times(s.left, each), {}};
  if (f.builds > 0) return f;
  if (each.cores > s.left.cores)
    f.short_of = too_little(s.left, s.all, each);
  else if (each.disk_bytes > s.left.disk_bytes)
    f.short_of =
        shortage("disk", now_->disk_free_bytes, each.disk_bytes, "disk_bytes", floors_.disk_free_min, "disk_free_min");
  else
    f.short_of = shortage("memory", now_->memory_available_bytes, each.memory_bytes, "memory_bytes",
                          floors_.memory_free_min, "memory_free_min");
  return f;
}

machine_pressure measure_pressure(const std::filesystem::path& proc) {
  machine_pressure p;
  const auto cpu = stalled(proc / "pressure/cpu", "some"); // "full" says nothing of CPUs: whoever has one gets on
  if (cpu) {
    p.cpu = *cpu;
    p.memory = stalled(proc / "pressure/memory", "full").value_or(0);
    p.io = stalled(proc / "pressure/io", "full").value_or(0);
    return p;
  }
  constexpr double load_max = 1e6;
  double load = 0;
  if (std::ifstream{proc / "loadavg"} >> load)
    p.load = static_cast<std::uint32_t>(std::clamp(100 * load / std::max(1u, std::thread::hardware_concurrency()), 0.0, load_max));
  return p;
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
  r.pressure = measure_pressure();
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
