#include "runtime/process_loop.hpp"

#include "runtime/cgroup.hpp"
#include "runtime/spawn.hpp"
#include "runtime/watchdog.hpp"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace coppice::rt {
namespace {

using std::chrono::milliseconds;
using steady = std::chrono::steady_clock;

/// Output told in one piece; a pipe's or terminal's own buffer is smaller in general.
constexpr std::size_t piece_bytes = 64 * 1024;
/// Output taken after the process's end: more than a pipe can hold, less than a daemon left behind can write.
constexpr std::size_t drain_bytes_max = 1 << 20;
/// How long the loop's end waits for killed processes.
constexpr milliseconds stop_wait{10'000};

milliseconds since(steady::time_point t) {
  return std::chrono::duration_cast<milliseconds>(steady::now() - t);
}

milliseconds to_ms(const timeval& t) {
  return std::chrono::duration_cast<milliseconds>(std::chrono::seconds{t.tv_sec} +
                                                  std::chrono::microseconds{t.tv_usec});
}

std::system_error os_error(const char* what) {
  return {errno, std::generic_category(), what};
}

} // namespace

struct process_loop::commands {
  struct start {
    process_id id;
    process_spec spec;
    process_observer observer;
  };
  std::vector<start> starts;
  std::map<process_id, std::size_t> acks; // of running processes at most window_bytes each
  std::map<process_id, boot_clock::time_point> extends;
  std::map<process_id, milliseconds> cancels;
  bool stop = false;
};

/// One process that was started and whose end is not told yet.
struct process_loop::child {
  process_observer observer;
  std::shared_ptr<cgroup> group;
  process_limits limits;
  milliseconds grace;
  std::size_t window_bytes;
  spawned os;
  process_exit result{};
  steady::time_point started = steady::now(), last_output = started;
  std::optional<steady::time_point> kill_at{}; ///< set once TERM was sent
  std::size_t unacked = 0;
  bool paused = false; ///< its output is not read until something is acknowledged
  bool frozen = false; ///< by its watchdog
  boot_clock::time_point lease{}; ///< the watchdog's deadline, as it was last told

  /// When something is to be done if nothing happens.
  steady::time_point deadline() const {
    if (kill_at) return *kill_at;
    auto at = steady::time_point::max();
    if (frozen) return at;
    if (limits.timeout.count() > 0) at = started + limits.timeout;
    if (limits.silence.count() > 0 && !paused) at = std::min(at, last_output + limits.silence);
    return at;
  }
};

class process_loop::engine {
public:
  engine(process_loop& loop, unique_fd poll) : loop_(loop), poll_(std::move(poll)) {}

  void run() {
    while (!stopping_ || (!children_.empty() && steady::now() < stop_at_)) {
      std::array<epoll_event, 64> events;
      const int n = ::epoll_wait(poll_.get(), events.data(), static_cast<int>(events.size()), wait_ms());
      for (int i = 0; i < n; ++i)
        handle(events[static_cast<std::size_t>(i)].data.u64);
      // not after an interrupted wait: whoever was stopped and continued may have missed what waits to be read
      if (n >= 0 && steady::now() >= check_at_) check_deadlines();
    }
    while (!children_.empty())
      finish(children_.begin());
  }

private:
  using children = std::map<process_id, child>;
  /// What of a process an event is about: two bits beside its id.
  enum source : std::uint64_t { its_end, its_output, its_watchdog };
  static std::uint64_t tag_of(process_id id, source s) { return id << 2 | s; }

  int wait_ms() const {
    auto at = stopping_ ? std::min(check_at_, stop_at_) : check_at_;
    if (at == steady::time_point::max()) return -1;
    auto ms = std::chrono::ceil<milliseconds>(at - steady::now()).count();
    return static_cast<int>(std::clamp<long long>(ms, 0, 60'000));
  }

  void handle(std::uint64_t tag) {
    if (tag == 0) return take_commands();
    auto it = children_.find(tag >> 2);
    if (it == children_.end()) return;
    switch (tag & 3) {
    case its_end: return finish(it);
    case its_output: return read_output(it->second);
    case its_watchdog: return listen(it->second);
    }
  }

  void watch(int fd, std::uint64_t tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    if (::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) throw os_error("epoll_ctl");
  }
  void unwatch(int fd) { ::epoll_ctl(poll_.get(), EPOLL_CTL_DEL, fd, nullptr); } // ignored: fails only if not there

  void take_commands() {
    std::uint64_t count;
    [[maybe_unused]] auto bytes = ::read(loop_.wake_.get(), &count, sizeof count); // ignored: it only resets the event
    commands todo;
    {
      std::lock_guard lock{loop_.mutex_};
      std::swap(todo, *loop_.waiting_);
    }
    if (todo.stop && !stopping_) {
      stopping_ = true;
      stop_at_ = steady::now() + stop_wait;
    }
    for (auto& s : todo.starts)
      start(s);
    for (auto [id, bytes_acked] : todo.acks)
      if (auto it = children_.find(id); it != children_.end()) ack(id, it->second, bytes_acked);
    for (auto [id, deadline] : todo.extends)
      if (auto it = children_.find(id); it != children_.end()) extend(it->second, deadline);
    for (auto [id, grace] : todo.cancels)
      if (auto it = children_.find(id); it != children_.end()) end(it->second, process_end::cancelled, grace);
    if (stopping_)
      for (auto& [id, c] : children_)
        end(c, process_end::cancelled, milliseconds{0});
  }

  void start(commands::start& s) {
    auto refuse = [&s](std::string why) {
      process_exit result;
      result.end = process_end::not_started;
      result.text = std::move(why);
      s.observer.exited(result);
    };
    if (stopping_) return refuse("the process loop is stopping");
    if (children_.size() >= processes_max) return refuse("too many processes run");
    auto os = spawn(s.spec);
    if (!os) return refuse(os.error().what);
    if (s.observer.started) s.observer.started(os->pid);
    child c{std::move(s.observer), std::move(s.spec.group), s.spec.limits,
            s.spec.grace,          s.spec.window_bytes,     std::move(*os)};
    watch(c.os.handle.get(), tag_of(s.id, its_end));
    watch(c.os.output.get(), tag_of(s.id, its_output));
    if (c.os.control) watch(c.os.control.get(), tag_of(s.id, its_watchdog));
    if (s.spec.watchdog) c.lease = s.spec.watchdog->deadline;
    check_at_ = std::min(check_at_, c.deadline());
    children_.emplace(s.id, std::move(c));
  }

  void ack(process_id id, child& c, std::size_t bytes) {
    c.unacked -= std::min(bytes, c.unacked);
    if (!c.paused || c.unacked >= c.window_bytes) return;
    c.paused = false;
    c.last_output = steady::now(); // the silence was ours
    check_at_ = std::min(check_at_, c.deadline());
    if (c.os.output) watch(c.os.output.get(), tag_of(id, its_output));
  }

  /// Reads what is there, at most `bytes_max`; false when there is nothing more now.
  bool read_some(child& c, std::size_t bytes_max) {
    std::string piece;
    bool more = true;
    while (more && piece.size() < bytes_max) {
      auto before = piece.size();
      piece.resize(bytes_max);
      auto n = ::read(c.os.output.get(), piece.data() + before, bytes_max - before);
      piece.resize(before + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
      if (n > 0 || (n < 0 && errno == EINTR)) continue;
      more = false;
      // a terminal whose other side is closed says EIO
      if (n == 0 || errno != EAGAIN) close_output(c);
    }
    if (piece.empty()) return more;
    c.last_output = steady::now();
    if (c.limits.log_bytes_max > 0 && c.result.output_bytes + piece.size() > c.limits.log_bytes_max) {
      piece.resize(static_cast<std::size_t>(c.limits.log_bytes_max - c.result.output_bytes));
      close_output(c);
      end(c, process_end::log_limit, milliseconds{0});
      more = false;
    }
    c.result.output_bytes += piece.size();
    c.unacked += piece.size();
    if (!piece.empty()) c.observer.output(std::move(piece));
    return more;
  }

  void read_output(child& c) {
    if (!c.os.output) return;
    read_some(c, piece_bytes);
    if (!c.os.output || c.unacked < c.window_bytes) return;
    c.paused = true;
    unwatch(c.os.output.get());
  }

  void close_output(child& c) {
    if (c.os.output) unwatch(c.os.output.get());
    c.os.output.reset();
  }

  static void extend(child& c, boot_clock::time_point deadline) {
    if (!c.os.control || deadline <= c.lease) return;
    c.lease = deadline;
    const auto ms = std::chrono::duration_cast<milliseconds>(deadline.time_since_epoch());
    const watchdog_word word{watchdog_word::kind::extend, 0, ms.count()};
    // ignored: it has ended, or stands still itself, and will hear of a later deadline
    (void)::send(c.os.control.get(), &word, sizeof word, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  /// Takes what the watchdog has said.
  void listen(child& c) {
    struct {
      watchdog_word word;
      char text[watchdog_text_bytes_max];
    } said;
    while (c.os.control) {
      const auto n = ::recv(c.os.control.get(), &said, sizeof said, MSG_DONTWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n < static_cast<ssize_t>(sizeof said.word)) { // it ended, which is told by its handle
        unwatch(c.os.control.get());
        c.os.control.reset();
        return;
      }
      on_word(c, said.word, {said.text, static_cast<std::size_t>(n) - sizeof said.word});
    }
  }

  void on_word(child& c, const watchdog_word& word, std::string_view text) {
    switch (word.what) {
    case watchdog_word::kind::frozen:
      c.frozen = true;
      if (c.kill_at) end(c, c.result.end, milliseconds{0}); // it cannot end by itself any more
      if (c.observer.frozen) c.observer.frozen();
      break;
    case watchdog_word::kind::thawed:
      c.frozen = false;
      c.started += milliseconds{word.ms};
      c.last_output = std::max(c.last_output, std::min(steady::now(), c.last_output + milliseconds{word.ms}));
      check_at_ = std::min(check_at_, c.deadline());
      if (c.observer.thawed) c.observer.thawed(milliseconds{word.ms});
      break;
    case watchdog_word::kind::lease_over:
      if (!c.kill_at) c.result.end = process_end::lease_over;
      break;
    case watchdog_word::kind::not_started:
      c.result.end = process_end::not_started;
      c.result.text = "cannot start it: " + std::string{text};
      break;
    case watchdog_word::kind::extend: break; // is not said to us
    }
  }

  /// Asks it to end, and sets when it is made to.
  void end(child& c, process_end why, milliseconds grace) {
    if (c.frozen) grace = milliseconds{0};
    auto kill_at = steady::now() + grace;
    if (!c.kill_at) {
      c.result.end = why;
      ::kill(-c.os.pid, SIGTERM); // ignored: it may have ended just now, and is not reaped, so the name is still its
      c.kill_at = kill_at;
    }
    c.kill_at = std::min(*c.kill_at, kill_at);
    check_at_ = std::min(check_at_, *c.kill_at);
  }

  void check_deadlines() {
    const auto now = steady::now();
    check_at_ = steady::time_point::max();
    for (auto& [id, c] : children_) {
      if (now >= c.deadline()) {
        if (c.kill_at) {
          ::kill(-c.os.pid, SIGKILL); // ignored: as above
          if (c.group) c.group->kill();
          c.kill_at = now + std::chrono::seconds{1}; // again, if it is still there
        } else {
          const bool late = c.limits.timeout.count() > 0 && now >= c.started + c.limits.timeout;
          end(c, late ? process_end::timed_out : process_end::silent, c.grace);
        }
      }
      check_at_ = std::min(check_at_, c.deadline());
    }
  }

  /// The process ended (or we give up waiting): kill what it left, take the output that is there, and tell.
  void finish(children::iterator it) {
    auto& c = it->second;
    siginfo_t info{};
    const auto handle = static_cast<id_t>(c.os.handle.get());
    ::waitid(P_PIDFD, handle, &info, WEXITED | WNOHANG | WNOWAIT); // ignored: si_pid stays 0 then
    if (info.si_pid == 0 && !stopping_) return;
    listen(c); // its last words
    // before it is reaped: until then its number names no other group
    ::kill(-c.os.pid, SIGKILL); // ignored: nobody may be left
    if (c.group) c.group->kill();
    rusage usage{};
    ::syscall(SYS_waitid, P_PIDFD, handle, &info, WEXITED | WNOHANG, &usage); // ignored: as above
    // what was there at its end is taken without credit, so that the end need not wait for anybody
    for (std::size_t drained = 0; c.os.output && drained < drain_bytes_max; drained += piece_bytes)
      if (!read_some(c, piece_bytes)) break;
    fill(c, info, usage);
    auto told = std::move(c.observer.exited);
    auto result = std::move(c.result);
    children_.erase(it);
    told(result);
  }

  static void fill(child& c, const siginfo_t& info, const rusage& usage) {
    auto& r = c.result;
    if (info.si_code == CLD_EXITED)
      r.code = info.si_status;
    else
      r.signal = info.si_status;
    r.wall = since(c.started);
    r.cpu_user = to_ms(usage.ru_utime);
    r.cpu_system = to_ms(usage.ru_stime);
    r.memory_peak_bytes = static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
    if (c.group) {
      auto used = c.group->usage();
      if (used.memory_peak_bytes > 0) r.memory_peak_bytes = used.memory_peak_bytes;
      if (used.cpu_user + used.cpu_system >= r.cpu_user + r.cpu_system) {
        r.cpu_user = used.cpu_user;
        r.cpu_system = used.cpu_system;
      }
      r.oom = used.oom;
      r.pids = used.pids_reached;
    }
    if (c.os.report) {
      r.report.resize(report_bytes_max);
      auto n = ::read(c.os.report.get(), r.report.data(), r.report.size());
      r.report.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    }
  }

  process_loop& loop_;
  unique_fd poll_;
  children children_;
  steady::time_point check_at_ = steady::time_point::max(); ///< not later than the first deadline
  bool stopping_ = false;
  steady::time_point stop_at_{};
};

process_loop::process_loop() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), waiting_(new commands) {
  unique_fd poll{::epoll_create1(EPOLL_CLOEXEC)};
  if (!wake_ || !poll) throw os_error("cannot make the process loop");
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(poll.get(), EPOLL_CTL_ADD, wake_.get(), &event) < 0) throw os_error("epoll_ctl");
  thread_ = std::thread{[this, fd = std::move(poll)]() mutable { engine{*this, std::move(fd)}.run(); }};
}

process_loop::~process_loop() {
  {
    std::lock_guard lock{mutex_};
    waiting_->stop = true;
  }
  wake();
  thread_.join();
  for (auto& s : waiting_->starts) {
    process_exit result;
    result.end = process_end::not_started;
    result.text = "the process loop is stopping";
    s.observer.exited(result);
  }
}

void process_loop::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] auto n = ::write(wake_.get(), &one, sizeof one); // ignored: a full counter wakes as well
}

void process_loop::start(process_id id, process_spec spec, process_observer observer) {
  {
    std::lock_guard lock{mutex_};
    waiting_->starts.push_back({id, std::move(spec), std::move(observer)});
  }
  wake();
}

void process_loop::ack(process_id id, std::size_t bytes) {
  {
    std::lock_guard lock{mutex_};
    waiting_->acks[id] += bytes;
  }
  wake();
}

void process_loop::extend(process_id id, boot_clock::time_point deadline) {
  {
    std::lock_guard lock{mutex_};
    auto& at = waiting_->extends[id];
    at = std::max(at, deadline);
  }
  wake();
}

void process_loop::cancel(process_id id, milliseconds grace) {
  {
    std::lock_guard lock{mutex_};
    auto [it, fresh] = waiting_->cancels.emplace(id, grace);
    if (!fresh) it->second = std::min(it->second, grace);
  }
  wake();
}

} // namespace coppice::rt
