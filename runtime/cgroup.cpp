#include "runtime/cgroup.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace coppice::rt {
namespace {

namespace fs = std::filesystem;

bool put(const std::string& path, const std::string& text) {
  unique_fd fd{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

/// Empty if it cannot be read: the group may be gone, also between open and read, where a bare streambuf throws.
std::string get(const std::string& path) {
  std::ifstream in{path};
  std::string text;
  std::getline(in, text, '\0');
  return text;
}

std::int64_t get_number(const std::string& path) {
  std::int64_t n = 0;
  std::istringstream{get(path)} >> n;
  return n;
}

/// The number after `key` in a file of "key number" lines; 0 if there is none.
std::int64_t get_number(const std::string& path, std::string_view key) {
  std::istringstream lines{get(path)};
  std::string name;
  for (std::int64_t n = 0; lines >> name >> n;)
    if (name == key) return n;
  return 0;
}

std::chrono::milliseconds microseconds_as_ms(std::int64_t n) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::microseconds{n});
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

/// Kills what is in one directory's group and below; true if nothing was there.
bool kill_in(const std::string& dir) {
  std::istringstream pids{get(dir + "/cgroup.procs")};
  bool empty = true;
  for (pid_t pid = 0; pids >> pid;) {
    empty = false;
    if (pid > 1 && pid != ::getpid()) ::kill(pid, SIGKILL); // ignored: it may be gone
  }
  return empty;
}

/// v1 has no cgroup.kill: a process that forks while it is killed may escape one round.
constexpr int v1_kill_rounds = 20;

void kill_all(const std::vector<std::string>& dirs) {
  for (const auto& dir : dirs)
    if (put(dir + "/cgroup.kill", "1")) return;
  // what v1 has frozen dies when it is thawed, and not before
  for (const auto& dir : dirs)
    if (exists(dir + "/freezer.state")) {
      kill_in(dir);
      put(dir + "/freezer.state", "THAWED"); // ignored: what is left is told by whoever removes the group
    }
  for (const auto& dir : dirs)
    for (int round = 0; round < v1_kill_rounds && !kill_in(dir); ++round)
      std::this_thread::yield();
}

/// Removes empty groups within `wait`; the first that cannot be removed, or nothing.
std::string remove_all(const std::vector<std::string>& dirs, std::chrono::milliseconds wait) {
  const auto deadline = std::chrono::steady_clock::now() + wait;
  for (const auto& dir : dirs)
    while (::rmdir(dir.c_str()) < 0 && errno != ENOENT) {
      if (errno != EBUSY || std::chrono::steady_clock::now() >= deadline) return dir + ": " + std::strerror(errno);
      kill_all(dirs);
      std::this_thread::sleep_for(std::chrono::milliseconds{2});
    }
  return {};
}

/// The directories of the groups this process is in, in the hierarchies that serve us.
std::vector<std::string> own_groups() {
  std::vector<std::string> found;
  std::istringstream lines{get("/proc/self/cgroup")};
  for (std::string line; std::getline(lines, line);) {
    auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    auto controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (path == "/") path.clear();
    std::vector<std::string> mounts;
    if (controllers.empty())
      mounts = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
    else if (controllers == "pids" || controllers == "memory" || controllers == "freezer")
      mounts = {"/sys/fs/cgroup/" + controllers};
    for (const auto& mount : mounts)
      if (exists(mount + path + "/cgroup.procs")) {
        found.push_back(mount + path);
        break;
      }
  }
  // v2's first: it decides whether v1's freezer is of use
  std::stable_partition(found.begin(), found.end(), [](auto& dir) { return exists(dir + "/cgroup.controllers"); });
  return found;
}

/// Opens what there is of the group's files.
expected<cgroup_files> open_files(const std::vector<std::string>& dirs) {
  cgroup_files files;
  const auto open = [](const std::string& path, int how) { return unique_fd{::open(path.c_str(), how | O_CLOEXEC)}; };
  for (const auto& dir : dirs) {
    files.procs.push_back(open(dir + "/cgroup.procs", O_RDWR));
    if (!files.procs.back()) return fail(ec::io, dir + "/cgroup.procs: " + std::strerror(errno));
    if (!files.killer) files.killer = open(dir + "/cgroup.kill", O_WRONLY);
    if (files.freezer) continue;
    files.freezer = open(dir + "/cgroup.freeze", O_WRONLY);
    if (files.freezer) continue;
    files.freezer = open(dir + "/freezer.state", O_WRONLY);
    files.freezer_is_v1 = static_cast<bool>(files.freezer);
  }
  return files;
}

} // namespace

cgroup::cgroup(std::vector<std::string> dirs, cgroup_files files) : dirs_(std::move(dirs)), files_(std::move(files)) {}

cgroup::~cgroup() {
  // ignored: what remains is removed by the next start's sweep
  (void)remove(std::chrono::milliseconds{0});
}

void cgroup::kill() const {
  kill_all(dirs_);
}

expected<void> cgroup::remove(std::chrono::milliseconds wait) const {
  kill();
  auto failed = remove_all(dirs_, wait);
  if (!failed.empty()) return fail(ec::unavailable, "cannot remove the control group " + failed);
  return {};
}

cgroup_usage cgroup::usage() const {
  cgroup_usage u;
  for (const auto& dir : dirs_) {
    u.memory_bytes = std::max(
        {u.memory_bytes, get_number(dir + "/memory.current"), get_number(dir + "/memory.usage_in_bytes")});
    u.memory_peak_bytes = std::max(
        {u.memory_peak_bytes, get_number(dir + "/memory.peak"), get_number(dir + "/memory.max_usage_in_bytes")});
    u.oom |=
        get_number(dir + "/memory.events", "oom_kill") > 0 || get_number(dir + "/memory.oom_control", "oom_kill") > 0;
    u.pids_reached |= get_number(dir + "/pids.events", "max") > 0;
    u.cpu_user += microseconds_as_ms(get_number(dir + "/cpu.stat", "user_usec"));
    u.cpu_system += microseconds_as_ms(get_number(dir + "/cpu.stat", "system_usec"));
  }
  return u;
}

cgroup_root::cgroup_root(const std::string& name) : cgroup_root(name, own_groups()) {}

cgroup_root::cgroup_root(const std::string& name, const std::vector<std::string>& hierarchies) {
  bool freezes = false;
  for (const auto& parent : hierarchies) {
    auto dir = parent + "/coppice-" + name;
    if (::mkdir(dir.c_str(), 0755) < 0 && errno != EEXIST) continue; // ignored: not ours to use
    // v2 needs either cgroup.kill or a v1 hierarchy beside it; a directory whose processes we may not move is no use
    if (::access((dir + "/cgroup.procs").c_str(), W_OK) < 0) continue;
    if (freezes && exists(dir + "/freezer.state")) { // one way is enough
      ::rmdir(dir.c_str()); // ignored: it is empty, and swept if not
      continue;
    }
    freezes |= exists(dir + "/cgroup.freeze") || exists(dir + "/freezer.state");
    for (const char* controller : {"+pids", "+memory"})
      if (exists(parent + "/cgroup.subtree_control") && put(parent + "/cgroup.subtree_control", controller))
        put(dir + "/cgroup.subtree_control", controller); // ignored: limits are then not kept
    const auto below = " " + get(dir + "/cgroup.subtree_control"); // v2's
    memory_ |= exists(dir + "/memory.limit_in_bytes") || below.find(" memory") != below.npos;
    pids_ |= exists(dir + "/pids.max") || below.find(" pids") != below.npos;
    dirs_.push_back(dir);
  }
}

cgroup_root::~cgroup_root() {
  for (const auto& dir : dirs_)
    ::rmdir(dir.c_str()); // ignored: what is left is swept at the next start
}

expected<void> cgroup_root::sweep(std::chrono::milliseconds wait) const {
  const auto deadline = std::chrono::steady_clock::now() + wait;
  std::vector<std::string> groups;
  for (const auto& dir : dirs_) {
    std::error_code failed;
    for (const auto& entry : fs::directory_iterator{dir, failed})
      if (entry.is_directory(failed)) groups.push_back(entry.path());
    if (failed) return fail(ec::io, "cannot list the control groups in " + dir + ": " + failed.message());
  }
  for (const auto& group : groups)
    kill_all({group});
  for (const auto& group : groups) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    auto stuck = remove_all({group}, left);
    if (!stuck.empty()) return fail(ec::unavailable, "processes of an earlier run do not die: " + stuck);
  }
  return {};
}

expected<std::shared_ptr<cgroup>> cgroup_root::make(const std::string& name, const cgroup_limits& limits) const {
  if (dirs_.empty()) return std::shared_ptr<cgroup>{};
  std::vector<std::string> dirs;
  auto failed = [&dirs](const std::string& path) {
    auto why = fail(ec::io, "cannot make the control group " + path + ": " + std::strerror(errno));
    (void)remove_all(dirs, {}); // ignored: swept at the next start
    return why;
  };
  for (const auto& parent : dirs_) {
    auto dir = parent + "/" + name;
    if (::mkdir(dir.c_str(), 0755) < 0) return failed(dir);
    dirs.push_back(dir);
    auto limit = [&dir](const char* file, std::int64_t n) {
      auto path = dir + file;
      return n <= 0 || !exists(path) || put(path, std::to_string(n));
    };
    if (!limit("/pids.max", limits.pids_max)) return failed(dir + "/pids.max");
    if (!limit("/memory.max", limits.memory_bytes_max)) return failed(dir + "/memory.max");
    if (!limit("/memory.limit_in_bytes", limits.memory_bytes_max)) return failed(dir + "/memory.limit_in_bytes");
  }
  auto files = open_files(dirs);
  if (!files) {
    (void)remove_all(dirs, {}); // ignored: swept at the next start
    return fail(ec::io, "cannot open the control group's " + files.error().what);
  }
  return std::make_shared<cgroup>(std::move(dirs), std::move(*files));
}

} // namespace coppice::rt
