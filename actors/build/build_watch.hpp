#pragma once

#include "actors/settings.hpp"
#include "messages/pipeline.hpp"
#include "runtime/cgroup.hpp"

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace coppice::actors {

/// What a running build is watched for; 0: not.
struct watch_limits {
  std::uint64_t memory_bytes_max = 0;
  std::uint64_t processes_max = 0;
  std::uint64_t disk_bytes_max = 0;
  std::uint64_t files_max = 0;
  std::uint64_t disk_free_min = 0;               ///< of its file system
  bool group_memory = false, group_pids = false; ///< its control group keeps these limits

  /// Its processes must be looked for in /proc.
  bool looks_at_processes() const {
    return (memory_bytes_max > 0 && !group_memory) || (processes_max > 0 && !group_pids);
  }
};

/// Decides whether a build keeps to its limits, by looks at it. Its files are counted only when its file system has
/// grown by as much as it has left, since counting costs a system call per file; and at most count_share_max of the
/// time.
class build_watch {
public:
  using time_point = std::chrono::steady_clock::time_point;
  struct verdict {
    failure why;
    std::string reason;
  };
  /// After this its files are counted again, whatever the file system says: another one may have freed what it took.
  static constexpr std::chrono::seconds count_interval{60};
  static constexpr int count_share_max = 20; ///< one part in so many

  /// Between looks: short at first, and while the disk fills so fast that a limit or the floor comes near.
  static constexpr std::chrono::milliseconds pause_min{50}, pause_first{100}, pause_max{1'000};

  explicit build_watch(const watch_limits& limits) : limits_(limits) {}

  /// Must its files be counted for this look, which knows only the file system so far?
  bool wants_count(const build_look& l, time_point now) const;
  /// What it is to be ended for, if anything; `drv` is for the reason.
  std::optional<verdict> on_look(const build_look& l, time_point now, const std::string& drv);
  /// Until the next look.
  std::chrono::milliseconds pause() const { return pause_; }
  const watch_limits& limits() const { return limits_; }

private:
  void set_pause(const build_look& l, time_point now);
  bool below_floor(const build_look& l) const;

  watch_limits limits_;
  std::optional<build_look> counted_; ///< the last look that counted
  time_point counted_at_{};
  std::optional<std::pair<std::uint64_t, time_point>> before_; ///< bytes used on the disk at the last look
  std::chrono::milliseconds pause_ = pause_first;
};

/// Where a build is to be looked at.
struct watched_build {
  std::filesystem::path dir; ///< its scratch, with its outputs
  std::shared_ptr<const rt::cgroup> group;
  std::shared_ptr<const std::atomic<pid_t>> process; ///< its first one, once it has started
};

/// Looks at it. Blocks: for pool threads. `io` if its file system cannot be asked.
expected<build_look> look_at(const watched_build& build, const build_watch& watch, build_watch::time_point now);

/// Counts files and bytes on disk below a directory that a builder is changing; stops once either is above its maximum
/// (0: none). A file with several names counts its bytes once, in all. What lies deeper than
/// count_depth_max is left out, and so is what cannot be read; it is told as hidden.
inline constexpr int count_depth_max = 200;
void count_tree(const std::filesystem::path& dir, std::uint64_t bytes_max, std::uint64_t files_max, build_look& into);

} // namespace coppice::actors
