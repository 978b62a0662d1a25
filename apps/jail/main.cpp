/// coppice-jail: stands between the daemon and the sandbox of a build, and stops that by itself when the lease of the
/// node ends, also when the daemon stands still or is gone (reliability.md 4.5). Statically linked and small, since each
/// build has one. It stays outside of the build's control group and keeps its user; only its child enters and drops.
///
///   coppice-jail CONTROL DEADLINE KILL_GRACE FREEZE_MAX UID GID PROCS FREEZER WORDS KILLER -- PROGRAM ARGUMENT…
///
/// CONTROL is the socket on which watchdog_words go both ways; it and what stands above it is not passed on, the
/// descriptors below are. Times are milliseconds, the deadline of CLOCK_BOOTTIME. A UID of -1 changes no user. PROCS are
/// the group's open `cgroup.procs`, FREEZER its `cgroup.freeze` or `freezer.state`, to which the words "1" and "0", or
/// FROZEN and THAWED, are written (WORDS is 2 or 1, the version of control groups), KILLER its `cgroup.kill`; -1 if there is
/// none. It exits as the program does, by the same signal if that ended by one.
#include "runtime/watchdog.hpp"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <initializer_list>

namespace {

using coppice::rt::watchdog;
using coppice::rt::watchdog_word;
using std::chrono::milliseconds;

constexpr int usage_code = 127;
/// Between two tries to kill what has not died yet.
constexpr milliseconds kill_again{100};
/// Without cgroup.kill: a process that forks while it is killed may escape one round.
constexpr int kill_rounds = 20;
constexpr int groups_max = 8;

struct arguments {
  int control, uid, gid;
  watchdog::terms terms;
  int procs[groups_max];
  int procs_count = 0;
  int freezer, words, killer;
  char** program;
};

milliseconds now() {
  timespec t{};
  clock_gettime(CLOCK_BOOTTIME, &t);
  return std::chrono::duration_cast<milliseconds>(std::chrono::seconds{t.tv_sec} + std::chrono::nanoseconds{t.tv_nsec});
}

bool parse(int argc, char** argv, arguments& a) {
  constexpr int program_at = 12;
  if (argc <= program_at || strcmp(argv[program_at - 1], "--") != 0) return false;
  const auto number = [&](int i) { return strtoll(argv[i], nullptr, 10); };
  a.control = static_cast<int>(number(1));
  a.terms.deadline = milliseconds{number(2)};
  a.terms.kill_grace = milliseconds{number(3)};
  a.terms.freeze_max = milliseconds{number(4)};
  a.uid = static_cast<int>(number(5));
  a.gid = static_cast<int>(number(6));
  for (char* word = strtok(argv[7], ","); word && a.procs_count < groups_max; word = strtok(nullptr, ","))
    if (const int fd = atoi(word); fd >= 0) a.procs[a.procs_count++] = fd;
  a.freezer = static_cast<int>(number(8));
  a.words = static_cast<int>(number(9));
  a.killer = static_cast<int>(number(10));
  a.terms.can_freeze = a.freezer >= 0;
  a.program = argv + program_at;
  return a.control > 2;
}

void say(int control, watchdog_word word, const char* text = "", const char* why = "") {
  struct {
    watchdog_word word;
    char text[coppice::rt::watchdog_text_bytes_max];
  } out{word, {}};
  size_t size = 0;
  for (const char* piece : {text, *why ? ": " : "", why})
    for (; *piece && size < sizeof out.text; ++piece)
      out.text[size++] = *piece;
  // ignored: the daemon is gone, or stands still and has been told
  (void)send(control, &out, sizeof word + size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

[[noreturn]] void refuse(int control, const char* what) {
  say(control, {watchdog_word::kind::not_started}, what, strerror(errno));
  _exit(usage_code);
}

/// In the child: into the group and down to the user, then the program.
[[noreturn]] void run(const arguments& a, pid_t parent) {
  for (int i = 0; i < a.procs_count; ++i)
    if (write(a.procs[i], "0", 1) != 1) refuse(a.control, "enter the control group");
  if (a.uid >= 0) {
    const auto uid = static_cast<uid_t>(a.uid);
    const auto gid = static_cast<gid_t>(a.gid);
    if (setgroups(0, nullptr) < 0) refuse(a.control, "setgroups");
    if (setresgid(gid, gid, gid) < 0) refuse(a.control, "setresgid");
    if (setresuid(uid, uid, uid) < 0) refuse(a.control, "setresuid");
  }
  // after the change of user, which resets it
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) refuse(a.control, "prctl");
  if (getppid() != parent) _exit(usage_code);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve(a.program[0], a.program, environ);
  refuse(a.control, a.program[0]);
}

/// Ends as the program did.
[[noreturn]] void end_like(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) _exit(info.si_status);
  prctl(PR_SET_DUMPABLE, 0); // the program's core is enough
  sigset_t all;
  sigfillset(&all);
  signal(info.si_status, SIG_DFL);
  sigprocmask(SIG_UNBLOCK, &all, nullptr);
  kill(getpid(), info.si_status);
  _exit(128 + info.si_status);
}

/// Carries out what the watchdog decides on one child and its group.
class jail {
public:
  explicit jail(const arguments& a) : args_(a), dog_(a.terms) {}

  /// Not once the lease is over: the machine may have stood still since the start was asked for.
  bool may_begin() {
    listen();
    if (!gone_ && dog_.at(now()) == watchdog::order::run) return true;
    say(args_.control, {watchdog_word::kind::lease_over});
    return false;
  }
  void watch(pid_t child) { child_ = child; }

  /// Brings the build into the state that it must have now; when to look again.
  milliseconds act() {
    const auto since = dog_.frozen_at();
    auto order = gone_ ? watchdog::order::kill : dog_.at(now());
    if (order == watchdog::order::freeze && !frozen_ && !set_frozen(true)) {
      dog_.cannot_freeze();
      order = dog_.at(now());
    }
    switch (order) {
    case watchdog::order::run:
      if (frozen_) thaw(since);
      return dog_.wake();
    case watchdog::order::freeze:
      if (!frozen_) {
        frozen_ = true;
        say(args_.control, {watchdog_word::kind::frozen});
      }
      return dog_.wake();
    case watchdog::order::kill: break;
    }
    kill_all();
    if (!told_) say(args_.control, {watchdog_word::kind::lease_over});
    told_ = true;
    return now() + kill_again;
  }

  /// Reads what the daemon says; its end is the build's (INV-11).
  void listen() {
    watchdog_word word;
    for (;;) {
      const auto n = recv(args_.control, &word, sizeof word, MSG_DONTWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) {
        gone_ = true;
        return;
      }
      if (n == sizeof word && word.what == watchdog_word::kind::extend) dog_.extend(milliseconds{word.ms});
    }
  }
  bool daemon_gone() const { return gone_; }

private:
  bool set_frozen(bool on) const {
    const char* text = args_.words == 1 ? (on ? "FROZEN" : "THAWED") : (on ? "1" : "0");
    return args_.freezer >= 0 && write(args_.freezer, text, strlen(text)) > 0;
  }

  void thaw(milliseconds since) {
    set_frozen(false);
    frozen_ = false;
    say(args_.control, {watchdog_word::kind::thawed, 0, (now() - since).count()});
  }

  void kill_all() {
    kill(child_, SIGKILL); // ignored, as below: it may be gone
    if (args_.killer >= 0 && write(args_.killer, "1", 1) == 1) return;
    // a frozen process of version 1 dies when it is thawed
    kill_listed();
    if (args_.words == 1) set_frozen(false);
    for (int round = 0; round < kill_rounds && kill_listed(); ++round)
      sched_yield();
  }

  /// False if nobody was there.
  bool kill_listed() const {
    bool found = false;
    for (int i = 0; i < args_.procs_count; ++i) {
      static char text[1 << 16]; // what has no room in it is killed in the next round
      const auto n = pread(args_.procs[i], text, sizeof text - 1, 0);
      text[std::max<ssize_t>(n, 0)] = '\0';
      char* at = text;
      for (char* line = strsep(&at, "\n"); line && *line && at; line = strsep(&at, "\n")) {
        const pid_t pid = atoi(line);
        if (pid > 1 && kill(pid, SIGKILL) == 0) found = true;
      }
    }
    return found;
  }

  const arguments& args_;
  pid_t child_ = -1;
  watchdog dog_;
  bool frozen_ = false, told_ = false, gone_ = false;
};

void wake_at(int timer, milliseconds at) {
  itimerspec t{};
  if (at != watchdog::never) {
    const auto ms = std::max<std::int64_t>(at.count(), 1); // 0 would disarm it
    t.it_value.tv_sec = ms / 1000;
    t.it_value.tv_nsec = ms % 1000 * 1'000'000;
  }
  timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, nullptr);
}

} // namespace

int main(int argc, char** argv) {
  arguments a{};
  if (!parse(argc, argv, a)) return usage_code;
  // the daemon's end is heard on the socket: this one outlives it for as long as the build has to be killed
  prctl(PR_SET_PDEATHSIG, 0);
  // who ends a build politely tells the whole process group; only the child is to end of it
  sigset_t polite;
  sigemptyset(&polite);
  for (int signal : {SIGTERM, SIGINT, SIGHUP})
    sigaddset(&polite, signal);
  sigprocmask(SIG_BLOCK, &polite, nullptr);
  if (syscall(SYS_close_range, a.control, ~0U, CLOSE_RANGE_CLOEXEC) < 0) refuse(a.control, "close_range");
  jail j{a};
  if (!j.may_begin()) return usage_code;
  const pid_t self = getpid(), child = fork();
  if (child < 0) refuse(a.control, "fork");
  if (child == 0) run(a, self);
  syscall(SYS_close_range, 3, a.control - 1, 0); // ignored: the child's, which nobody here reads

  const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  const int timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
  if (handle < 0 || timer < 0) refuse(a.control, "watch the build"); // the child dies with us
  j.watch(child);
  for (;;) {
    wake_at(timer, j.act());
    // a socket at its end is readable for ever
    pollfd fds[] = {{handle, POLLIN, 0}, {timer, POLLIN, 0}, {j.daemon_gone() ? -1 : a.control, POLLIN, 0}};
    if (poll(fds, 3, -1) < 0) continue;
    siginfo_t info{};
    if (fds[0].revents && waitid(P_PIDFD, static_cast<id_t>(handle), &info, WEXITED) == 0) end_like(info);
    if (fds[2].revents) j.listen();
  }
}
