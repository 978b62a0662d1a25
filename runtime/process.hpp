#pragma once

#include "runtime/clock.hpp"
#include "runtime/fd.hpp"

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// Child processes as a port, so that tests fake them: nobody waits for a process, its end is told.
namespace coppice::rt {

class cgroup;

/// Names a process from before its start until after its end; never used twice.
using process_id = std::uint64_t;

/// Where a process's output goes.
enum class output_kind : std::uint8_t {
  pty, ///< a pseudo terminal in raw mode without echo, which is not the controlling terminal
  pipe
};

/// What ends a process that does not end by itself. Zero means no limit.
struct process_limits {
  std::chrono::milliseconds timeout{0}; ///< in all, as the next without the time it was frozen
  std::chrono::milliseconds silence{0}; ///< without output, while somebody takes its output
  std::uint64_t log_bytes_max = 0;      ///< of output in all
};

/// The user a process runs as; only root can choose.
struct process_user {
  uid_t uid = 0;
  gid_t gid = 0;
};

/// A small program between us and the process that stops it when its time is over, also when we stand still, and kills
/// it when we are gone: apps/jail. It stays outside of the process's group, and keeps our user.
struct process_watchdog {
  std::string program;                ///< its path
  boot_clock::time_point deadline;    ///< extend() moves it; boot_clock::time_point::max(): it never comes
  std::chrono::milliseconds kill_grace{0}; ///< so long before it the group is frozen, or killed if it cannot be
  std::chrono::milliseconds freeze_max{0}; ///< so long it may stand still, then it is killed
};

/// What to run. Standard input is the null device, the process leads a session of its own, all signals are reset, and
/// it gets no file descriptors but the standard ones and those named here.
struct process_spec {
  std::vector<std::string> argv; ///< the first is the program's path; no search
  std::vector<std::string> env;  ///< NAME=value; nothing is inherited
  std::string cwd = "/";
  std::vector<std::shared_ptr<unique_fd>> fds; ///< they become 3, 4, …; kept open until the start
  bool with_report = false;                    ///< the next number after fds is a pipe: see process_exit::report
  output_kind output = output_kind::pipe;
  bool output_on_stdout = true; ///< false: only standard error has it, standard output is the null device
  std::optional<process_user> run_as;
  std::shared_ptr<cgroup> group; ///< started in it; all in it is killed when the process ends
  std::optional<process_watchdog> watchdog;
  process_limits limits;
  std::chrono::milliseconds grace{2'000}; ///< between TERM and KILL when a limit is reached
  std::size_t window_bytes = 1 << 20;     ///< output told and not yet acknowledged; then it is not read further
};

/// What ended a process.
enum class process_end : std::uint8_t {
  exited,      ///< it did so itself, or by a signal from elsewhere
  cancelled,   ///< cancel()
  timed_out,   ///< limits.timeout
  silent,      ///< limits.silence
  log_limit,   ///< limits.log_bytes_max
  lease_over,  ///< its watchdog's deadline, or freeze_max after it
  not_started, ///< `text` says why
};

/// How a process ended.
struct process_exit {
  process_end end = process_end::exited;
  int code = 0; ///< exit code, if signal is 0
  int signal = 0;
  std::chrono::milliseconds wall{0};
  std::chrono::milliseconds cpu_user{0}, cpu_system{0}; ///< of its cgroup, else of all descendants that were waited for
  std::int64_t memory_peak_bytes = 0;                   ///< of its cgroup, else of the largest single process
  std::uint64_t output_bytes = 0;
  std::string report; ///< what was written to the report pipe, at most report_bytes_max
  bool oom = false;   ///< its cgroup's memory limit killed something
  bool pids = false;  ///< its cgroup's limit of processes was reached
  std::string text;   ///< why it did not start
};

/// Bytes of the report pipe that are kept.
inline constexpr std::size_t report_bytes_max = 1024;

/// Told on the process loop's thread, never after `exited`; they must not block (send a message and return).
struct process_observer {
  std::function<void(std::string)> output;         ///< bytes, in order; to be acknowledged
  std::function<void(const process_exit&)> exited; ///< called exactly once, after all output
  std::function<void(pid_t)> started = {};         ///< its number, before any output; not if it does not start
  std::function<void()> frozen = {};               ///< by its watchdog
  std::function<void(std::chrono::milliseconds)> thawed = {}; ///< after it stood still for so long
};

/// Starts, limits and ends processes. Every function may be called from any thread and returns at once.
class process_port {
public:
  virtual ~process_port() = default;
  /// A new name for a process to be started.
  process_id reserve() { return ++last_id_; }
  /// Starts it; when that fails `exited` says not_started.
  virtual void start(process_id id, process_spec spec, process_observer observer) = 0;
  /// `bytes` of its output are dealt with; unknown or ended ids are ignored.
  virtual void ack(process_id id, std::size_t bytes) = 0;
  /// Its watchdog's deadline is not before `deadline`; ids without a watchdog are ignored, too.
  virtual void extend(process_id id, boot_clock::time_point deadline) = 0;
  /// TERM to its process group now, KILL to the group and its cgroup after `grace` (0, or frozen: at once). `exited` follows.
  /// Unknown or ended ids are ignored; the shortest grace of several calls holds.
  virtual void cancel(process_id id, std::chrono::milliseconds grace) = 0;

private:
  std::atomic<process_id> last_id_{0};
};

} // namespace coppice::rt
