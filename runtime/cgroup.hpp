#pragma once

#include "messages/errors.hpp"
#include "runtime/fd.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

/// Control groups where the machine lets us have them: v2 (cgroup.kill, cgroup.freeze) and the v1 hierarchies `pids`,
/// `memory` and, where v2 cannot freeze, `freezer`. Without any, builds still die by their pid namespace (INV-11); somebody else must then keep the limits below.
namespace coppice::rt {

/// What one build may use at most; zero means no limit.
struct cgroup_limits {
  std::int64_t memory_bytes_max = 0;
  std::int64_t pids_max = 0;
};

/// What a group used, as far as the machine counts it.
struct cgroup_usage {
  std::int64_t memory_bytes = 0;      ///< now
  std::int64_t memory_peak_bytes = 0; ///< with what it had in files in memory
  std::chrono::milliseconds cpu_user{0}, cpu_system{0};
  bool oom = false;          ///< the memory limit killed something
  bool pids_reached = false; ///< a process could not be started for the limit
};

/// Files of one group that a process outside of it works with.
struct cgroup_files {
  std::vector<unique_fd> procs; ///< each `cgroup.procs`: a process that writes "0" to all of them is in the group
  unique_fd freezer;            ///< takes "1" and "0", or FROZEN and THAWED; none: it cannot be frozen
  bool freezer_is_v1 = false;   ///< the latter
  unique_fd killer;             ///< `cgroup.kill`: takes "1"; none: processes are killed one by one
};

/// One build's group: a directory in each hierarchy. Killed when destroyed, and removed if that is at once possible.
class cgroup {
public:
  explicit cgroup(std::vector<std::string> dirs, cgroup_files files);
  ~cgroup();
  cgroup(const cgroup&) = delete;
  cgroup& operator=(const cgroup&) = delete;

  const cgroup_files& files() const { return files_; }
  /// Kills every process in it, frozen or not; those that start meanwhile too. Takes microseconds; they may need longer to be gone.
  void kill() const;
  /// Kills, waits at most `wait` until nothing is left, and removes the group. Blocks.
  expected<void> remove(std::chrono::milliseconds wait) const;
  /// What it used so far.
  cgroup_usage usage() const;

private:
  std::vector<std::string> dirs_;
  cgroup_files files_;
};

/// Our part of the machine's hierarchies: a directory `coppice-<name>` in each that is writable.
class cgroup_root {
public:
  /// Finds the hierarchies this process may use, below the group it is in. None is not an error: then make() gives
  /// null. `name` is one path component that identifies the state directory.
  explicit cgroup_root(const std::string& name);
  /// The same with these hierarchies' directories, which need not be control groups; for tests.
  cgroup_root(const std::string& name, const std::vector<std::string>& hierarchies);

  /// Removes our directories if no group is left in them.
  ~cgroup_root();
  cgroup_root(const cgroup_root&) = delete;
  cgroup_root& operator=(const cgroup_root&) = delete;

  bool usable() const { return !dirs_.empty(); }
  /// Groups made here keep cgroup_limits::memory_bytes_max and pids_max.
  bool keeps_memory() const { return memory_; }
  bool keeps_pids() const { return pids_; }
  /// Kills whatever an earlier process left in our groups, waits until they are empty and removes them (INV-11).
  /// `unavailable` if something does not die within `wait`. Call it before the first make().
  expected<void> sweep(std::chrono::milliseconds wait = std::chrono::seconds{5}) const;
  /// A new group of that name (one path component); null if there is no hierarchy.
  expected<std::shared_ptr<cgroup>> make(const std::string& name, const cgroup_limits& limits) const;

private:
  std::vector<std::string> dirs_;
  bool memory_ = false, pids_ = false;
};

} // namespace coppice::rt
