#include "runtime/spawn.hpp"

#include "runtime/cgroup.hpp"
#include "runtime/watchdog.hpp"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#ifdef __SANITIZE_THREAD__
// the sanitizer takes clone() for a fork and then reports races that are none; this is the same without its wrapper
extern "C" int __clone(int (*)(void*), void*, int, void*, ...) noexcept;
#define clone __clone
#endif

namespace coppice::rt {
namespace {

tl::unexpected<error> os_failure(const std::string& what) {
  return fail(ec::io, what + ": " + std::strerror(errno));
}

struct output_ends {
  unique_fd ours, theirs;
};

expected<output_ends> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return os_failure("cannot make a pipe");
  output_ends pipe{unique_fd{ends[0]}, unique_fd{ends[1]}};
  if (::fcntl(pipe.ours.get(), F_SETFL, O_NONBLOCK) < 0) return os_failure("cannot make a pipe non-blocking");
  return pipe;
}

expected<output_ends> make_pty(const std::optional<process_user>& user) {
  output_ends pty;
  pty.ours.reset(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!pty.ours) return os_failure("cannot open /dev/ptmx");
  int locked = 0;
  if (::ioctl(pty.ours.get(), TIOCSPTLCK, &locked) < 0) return os_failure("cannot unlock a pseudo terminal");
  pty.theirs.reset(::ioctl(pty.ours.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!pty.theirs) return os_failure("cannot open a pseudo terminal");
  termios mode{};
  if (::tcgetattr(pty.theirs.get(), &mode) < 0) return os_failure("cannot read a pseudo terminal's mode");
  ::cfmakeraw(&mode);
  if (::tcsetattr(pty.theirs.get(), TCSANOW, &mode) < 0) return os_failure("cannot make a pseudo terminal raw");
  // programs reopen /dev/stderr, so its user must own it
  if (user && ::fchown(pty.theirs.get(), user->uid, user->gid) < 0) return os_failure("cannot give away a terminal");
  return pty;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const auto& text : texts)
    result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

/// Everything the child needs, made before it exists: it shares our memory and must not allocate.
struct plan {
  pid_t parent;
  const char* cwd;
  char** argv;
  char** env;
  const process_user* user;
  std::vector<int> fds; // the i-th becomes number i; moved out of each other's way in place
  std::vector<int> groups;
  const char* failed_at = nullptr;
  int failed_with = 0;
};

/// Runs in the child, on its own stack, while we wait. Raw system calls only: what glibc and sanitizers remember of
/// signals, descriptors and users is ours, since the memory is.
__attribute__((no_sanitize("address", "thread", "undefined"))) int child_main(void* argument) {
  auto& p = *static_cast<plan*>(argument);
  const auto failed = [&p](const char* at) {
    p.failed_at = at;
    p.failed_with = errno;
    return 127;
  };
  const unsigned long by_default[8] = {}; // the kernel's struct sigaction
  const unsigned long no_signals = 0;
  for (int s = 1; s < NSIG; ++s)
    ::syscall(SYS_rt_sigaction, s, by_default, nullptr, sizeof no_signals); // ignored: KILL and STOP cannot be set
  if (::syscall(SYS_setsid) < 0) return failed("setsid");
  for (int group : p.groups)
    if (::syscall(SYS_write, group, "0", 1) != 1) return failed("enter the control group");
  if (p.user) {
    if (::syscall(SYS_setgroups, 0, nullptr) < 0) return failed("setgroups");
    if (::syscall(SYS_setresgid, p.user->gid, p.user->gid, p.user->gid) < 0) return failed("setresgid");
    if (::syscall(SYS_setresuid, p.user->uid, p.user->uid, p.user->uid) < 0) return failed("setresuid");
  }
  // after the change of user, which resets it
  if (::syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) return failed("prctl");
  if (::syscall(SYS_getppid) != p.parent) return failed("find our parent");
  const int count = static_cast<int>(p.fds.size());
  for (int& fd : p.fds)
    if ((fd = static_cast<int>(::syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, count))) < 0)
      return failed("duplicate a descriptor");
  for (int i = 0; i < count; ++i)
    if (::syscall(SYS_dup3, p.fds[static_cast<std::size_t>(i)], i, 0) < 0) return failed("place a descriptor");
  if (::syscall(SYS_close_range, count, ~0U, 0) < 0) return failed("close_range");
  if (::syscall(SYS_chdir, p.cwd) < 0) return failed(p.cwd);
  if (::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, nullptr, sizeof no_signals) < 0) return failed("unblock");
  ::syscall(SYS_execve, p.argv[0], p.argv, p.env);
  return failed("execve");
}

/// Blocks all signals, so that no handler of ours runs in the child.
class blocked_signals {
public:
  blocked_signals() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~blocked_signals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  blocked_signals(const blocked_signals&) = delete;
  blocked_signals& operator=(const blocked_signals&) = delete;

private:
  sigset_t before_;
};

constexpr std::size_t child_stack_bytes = 64 * 1024;

expected<output_ends> make_control() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return os_failure("cannot make a socket pair");
  return output_ends{unique_fd{ends[0]}, unique_fd{ends[1]}};
}

std::string to_ms(std::chrono::milliseconds d) {
  return std::to_string(d.count());
}

/// The command line of apps/jail. `fds` are the descriptors that it gets; those it needs are added, `control` first.
std::vector<std::string> jail_argv(const process_spec& spec, int control, std::vector<int>& fds) {
  const auto add = [&fds](int fd) {
    if (fd >= 0) fds.push_back(fd);
    return fd < 0 ? std::string{"-1"} : std::to_string(fds.size() - 1);
  };
  const auto& w = *spec.watchdog;
  const auto since = w.deadline.time_since_epoch();
  const auto deadline = w.deadline == boot_clock::time_point::max()
                            ? watchdog::never
                            : std::chrono::duration_cast<std::chrono::milliseconds>(since);
  const bool drops = spec.run_as.has_value();
  std::vector<std::string> argv{w.program,          add(control),        to_ms(deadline), to_ms(w.kill_grace),
                                to_ms(w.freeze_max), drops ? std::to_string(spec.run_as->uid) : "-1",
                                drops ? std::to_string(spec.run_as->gid) : "-1"};
  static const cgroup_files none;
  const auto& files = spec.group ? spec.group->files() : none;
  std::string procs;
  for (const auto& file : files.procs)
    procs += (procs.empty() ? "" : ",") + add(file.get());
  argv.insert(argv.end(), {procs.empty() ? "-1" : procs, add(files.freezer.get()), files.freezer_is_v1 ? "1" : "2",
                           add(files.killer.get()), "--"});
  argv.insert(argv.end(), spec.argv.begin(), spec.argv.end());
  return argv;
}

} // namespace

expected<spawned> spawn(const process_spec& spec) {
  if (spec.argv.empty()) return fail(ec::invalid, "cannot start a process without a program");
  auto output = spec.output == output_kind::pty ? make_pty(spec.run_as) : make_pipe();
  if (!output) return tl::unexpected(output.error());
  output_ends report;
  if (spec.with_report) {
    auto made = make_pipe();
    if (!made) return tl::unexpected(made.error());
    report = std::move(*made);
  }
  unique_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  if (!null) return os_failure("cannot open /dev/null");

  output_ends control;
  if (spec.watchdog) {
    auto made = make_control();
    if (!made) return tl::unexpected(made.error());
    control = std::move(*made);
  }
  auto env = pointers(spec.env);
  plan p{::getpid(), spec.cwd.c_str(), nullptr, env.data(), nullptr, {}, {}};
  p.fds = {null.get(), (spec.output_on_stdout ? output->theirs : null).get(), output->theirs.get()};
  for (const auto& fd : spec.fds)
    p.fds.push_back(fd->get());
  if (report.theirs) p.fds.push_back(report.theirs.get());
  // with a watchdog, its child does what is done here without one
  const auto words = spec.watchdog ? jail_argv(spec, control.theirs.get(), p.fds) : spec.argv;
  auto argv = pointers(words);
  p.argv = argv.data();
  if (!spec.watchdog) {
    p.user = spec.run_as ? &*spec.run_as : nullptr;
    if (spec.group)
      for (const auto& procs : spec.group->files().procs)
        p.groups.push_back(procs.get());
  }

  alignas(16) static thread_local std::array<std::byte, child_stack_bytes> stack;
  int handle = -1;
  pid_t pid;
  {
    blocked_signals guard;
    pid = ::clone(child_main, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &p, &handle);
  }
  if (pid < 0) return os_failure("cannot start " + spec.argv[0]);
  spawned result{pid, unique_fd{handle}, std::move(output->ours), std::move(report.ours),
                 std::move(control.ours)};
  if (p.failed_at) {
    siginfo_t info;
    ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED); // ignored: it did exit
    return fail(ec::io, "cannot start " + words[0] + ": " + p.failed_at + ": " + std::strerror(p.failed_with));
  }
  return result;
}

} // namespace coppice::rt
