#include "runtime/cgroup.hpp"
#include "runtime/process_loop.hpp"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

using namespace coppice::rt;
using namespace std::chrono_literals;

namespace {

process_spec shell(std::string script) {
  process_spec spec;
  spec.argv = {"/bin/sh", "-c", std::move(script)};
  spec.env = {"PATH=/usr/bin:/bin"};
  return spec;
}

struct outcome {
  process_exit exit;
  std::string output;
};

/// One process of a loop, whose output is acknowledged at once.
class running {
public:
  running(process_loop& loop, process_spec spec, bool acks = true) : loop_(loop), id_(loop.reserve()) {
    loop.start(id_, std::move(spec),
               {[this, acks](std::string piece) {
                  if (acks) loop_.ack(id_, piece.size());
                  std::lock_guard lock{mutex_};
                  output_ += piece;
                },
                [exit = exit_](const process_exit& e) { exit->set_value(e); }});
  }
  process_id id() const { return id_; }
  std::string output() {
    std::lock_guard lock{mutex_};
    return output_;
  }
  bool ended_within(std::chrono::milliseconds d) { return future_.wait_for(d) == std::future_status::ready; }
  outcome wait() {
    REQUIRE(ended_within(20s));
    auto e = future_.get();
    return {e, output()};
  }

private:
  process_loop& loop_;
  process_id id_;
  std::mutex mutex_;
  std::string output_;
  /// Shared, because set_value may still run when the future is ready.
  std::shared_ptr<std::promise<process_exit>> exit_ = std::make_shared<std::promise<process_exit>>();
  std::future<process_exit> future_ = exit_->get_future();
};

outcome run(process_spec spec) {
  process_loop loop;
  return running{loop, std::move(spec)}.wait();
}

bool eventually(const std::function<bool()>& f, std::chrono::milliseconds within = 5s) {
  for (auto end = std::chrono::steady_clock::now() + within; std::chrono::steady_clock::now() < end;) {
    if (f()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return f();
}

/// Whether a process whose command line contains `mark` runs; zombies do not run.
bool runs(const std::string& mark) {
  for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
    std::ifstream in{entry.path() / "cmdline"};
    std::string line{std::istreambuf_iterator<char>{in}, {}};
    if (line.find(mark) != std::string::npos) return true;
  }
  return false;
}

/// An argument of sleep that no other process has.
std::string unlikely_seconds() {
  static int counter = 0;
  return std::to_string(1'000'000 + ::getpid()) + "." + std::to_string(++counter + 100);
}

std::size_t open_descriptors() {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator{"/proc/self/fd"})
    ++n;
  return n;
}

} // namespace

TEST_CASE("an exit code is told") {
  auto r = run(shell("exit 7"));
  CHECK(r.exit.end == process_end::exited);
  CHECK(r.exit.code == 7);
  CHECK(r.exit.signal == 0);
}

TEST_CASE("a deadly signal is told") {
  auto r = run(shell("kill -SEGV $$"));
  CHECK(r.exit.signal == SIGSEGV);
}

TEST_CASE("both outputs arrive in order before the exit") {
  auto r = run(shell("echo a; echo b >&2; echo c"));
  CHECK(r.output == "a\nb\nc\n");
  CHECK(r.exit.output_bytes == 6);
}

TEST_CASE("a terminal is raw and is not the controlling one") {
  auto spec =
      shell("printf 'a\\nb\\tc\\n'; test -t 1 && test -t 2 && echo tty; (exec 3</dev/tty) 2>/dev/null || echo none");
  spec.output = output_kind::pty;
  CHECK(run(std::move(spec)).output == "a\nb\tc\ntty\nnone\n");
}

TEST_CASE("standard output can be the null device while standard error is told") {
  auto spec = shell("echo a; echo b >&2");
  spec.output_on_stdout = false;
  CHECK(run(std::move(spec)).output == "b\n");
}

TEST_CASE("a process has the given environment, directory and descriptors and nothing else") {
  process_spec spec;
  spec.argv = {"/bin/sh", "-c",
               "pwd; /usr/bin/env -u PWD -u OLDPWD -u SHLVL -u _; cat <&3; ls /proc/self/fd; cat /proc/self/stat | cut "
               "-d' ' -f4"};
  spec.env = {"A=b c"};
  spec.cwd = "/usr";
  auto file = std::make_shared<unique_fd>(::memfd_create("x", MFD_CLOEXEC));
  REQUIRE(::write(file->get(), "given\n", 6) == 6);
  ::lseek(file->get(), 0, SEEK_SET);
  spec.fds = {file};
  auto output = run(std::move(spec)).output;
  // 4 is ls's own
  CHECK(output.starts_with("/usr\nA=b c\ngiven\n0\n1\n2\n3\n4\n"));
}

TEST_CASE("signals are reset in the process whatever they are in ours") {
  auto before = ::signal(SIGPIPE, SIG_IGN);
  auto r = run(shell("grep -E 'Sig(Blk|Ign)' /proc/self/status"));
  ::signal(SIGPIPE, before);
  CHECK(r.output == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST_CASE("a program that is not there is not started, with a reason") {
  process_spec spec;
  spec.argv = {"/nowhere/program"};
  auto r = run(std::move(spec));
  CHECK(r.exit.end == process_end::not_started);
  CHECK(r.exit.text == "cannot start /nowhere/program: execve: No such file or directory");
}

TEST_CASE("cancel ends a process group by TERM") {
  process_loop loop;
  running p{loop, shell("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")};
  REQUIRE(eventually([&] { return p.output() == "up\n"; }));
  loop.cancel(p.id(), 10s);
  auto r = p.wait();
  CHECK(r.exit.end == process_end::cancelled);
  CHECK(r.exit.code == 3);
  CHECK(r.output.ends_with("bye\n"));
}

TEST_CASE("a process that ignores TERM is killed after the grace time") {
  process_loop loop;
  running p{loop, shell("trap '' TERM; echo up; while :; do sleep 0.05; done")};
  REQUIRE(eventually([&] { return p.output() == "up\n"; }));
  auto from = std::chrono::steady_clock::now();
  loop.cancel(p.id(), 300ms);
  auto r = p.wait();
  CHECK(r.exit.signal == SIGKILL);
  CHECK(std::chrono::steady_clock::now() - from >= 300ms);
}

TEST_CASE("a later cancel without grace overrides an earlier one") {
  process_loop loop;
  running p{loop, shell("trap '' TERM; echo up; while :; do sleep 0.05; done")};
  REQUIRE(eventually([&] { return p.output() == "up\n"; }));
  loop.cancel(p.id(), 1h);
  loop.cancel(p.id(), 0ms);
  CHECK(p.wait().exit.signal == SIGKILL);
}

TEST_CASE("a daemon that holds the output open does not delay the end") {
  auto r = run(shell("setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.2; echo done"));
  // it is outside the group: only a pid namespace or a control group ends it
  const auto daemon = static_cast<pid_t>(std::stoi(r.output));
  CHECK(::kill(daemon, SIGKILL) == 0);
  CHECK(r.exit.end == process_end::exited);
  CHECK(r.output.ends_with("\ndone\n"));
  CHECK(r.exit.wall < 5s);
}

TEST_CASE("background processes of the group are killed when their leader ends") {
  auto mark = unlikely_seconds();
  run(shell("sleep " + mark + " & exit 0"));
  CHECK(eventually([&] { return !runs(mark); }));
}

TEST_CASE("a process that takes too long is ended") {
  auto spec = shell("while :; do echo x; sleep 0.05; done");
  spec.limits.timeout = 300ms;
  auto r = run(std::move(spec));
  CHECK(r.exit.end == process_end::timed_out);
}

TEST_CASE("a silent process is ended") {
  auto spec = shell("echo x; sleep 100");
  spec.limits.silence = 300ms;
  auto r = run(std::move(spec));
  CHECK(r.exit.end == process_end::silent);
  CHECK(r.output == "x\n");
}

TEST_CASE("a talking process is not silent") {
  auto spec = shell("for i in 1 2 3 4 5 6 7 8; do echo x; sleep 0.1; done");
  spec.limits.silence = 500ms;
  CHECK(run(std::move(spec)).exit.end == process_end::exited);
}

TEST_CASE("a log flood is cut at its limit and ended") {
  auto spec = shell("yes");
  spec.limits.log_bytes_max = 1'000'003;
  auto r = run(std::move(spec));
  CHECK(r.exit.end == process_end::log_limit);
  CHECK(r.exit.output_bytes == 1'000'003);
  CHECK(r.output.size() == 1'000'003);
}

TEST_CASE("output exactly as long as the limit is allowed") {
  auto spec = shell("head -c 100000 /dev/zero");
  spec.limits.log_bytes_max = 100'000;
  CHECK(run(std::move(spec)).exit.end == process_end::exited);
}

TEST_CASE("40 MB pass through a small window without loss") {
  auto spec = shell("head -c 40000000 /dev/zero");
  spec.window_bytes = 10'000;
  auto r = run(std::move(spec));
  CHECK(r.exit.output_bytes == 40'000'000);
  CHECK(r.output.size() == 40'000'000);
}

TEST_CASE("output stops at the window until it is acknowledged, and that is not silence") {
  process_loop loop;
  auto spec = shell("head -c 3000000 /dev/zero");
  spec.window_bytes = 100'000;
  spec.limits.silence = 300ms;
  running p{loop, std::move(spec), false};
  REQUIRE(eventually([&] { return p.output().size() >= 100'000; }));
  CHECK_FALSE(p.ended_within(600ms));
  auto held = p.output().size();
  CHECK(held < 100'000 + 64 * 1024);
  for (std::size_t acked = 0; !p.ended_within(1ms);)
    if (auto now = p.output().size(); now > acked) {
      loop.ack(p.id(), now - acked);
      acked = now;
    }
  CHECK(p.wait().exit.output_bytes == 3'000'000);
}

TEST_CASE("what a process reports is told at its end") {
  auto spec = shell("printf hello >&3");
  spec.with_report = true;
  CHECK(run(std::move(spec)).exit.report == "hello");
}

TEST_CASE("processor time and memory of descendants are told") {
  auto r = run(shell("sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'"));
  CHECK(r.exit.cpu_user + r.exit.cpu_system > 20ms);
  CHECK(r.exit.memory_peak_bytes > 500'000);
  CHECK(r.exit.wall > 20ms);
}

TEST_CASE("two hundred processes at once end well and leave no descriptor") {
  std::size_t before = open_descriptors();
  {
    process_loop loop;
    std::vector<std::unique_ptr<running>> all;
    for (int i = 0; i < 200; ++i)
      all.push_back(
          std::make_unique<running>(loop, shell("echo " + std::to_string(i) + "; exit " + std::to_string(i % 50))));
    for (int i = 0; i < 200; ++i) {
      auto r = all[static_cast<std::size_t>(i)]->wait();
      CHECK(r.exit.code == i % 50);
      CHECK(r.output == std::to_string(i) + "\n");
    }
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("the loop's end kills what runs and tells it") {
  std::optional<process_loop> loop{std::in_place};
  auto spec = shell("trap '' TERM; echo up; while :; do sleep 0.05; done");
  running p{*loop, std::move(spec)};
  REQUIRE(eventually([&] { return p.output() == "up\n"; }));
  loop.reset();
  REQUIRE(p.ended_within(0ms));
  auto r = p.wait();
  CHECK(r.exit.end == process_end::cancelled);
  CHECK(r.exit.signal == SIGKILL);
}

#ifndef __SANITIZE_THREAD__ // which does not let a forked process start threads
TEST_CASE("a process is killed when ours is") {
  auto mark = unlikely_seconds();
  pid_t daemon = ::fork();
  if (daemon == 0) {
    process_loop loop;
    process_spec spec;
    spec.argv = {"/bin/sleep", mark};
    loop.start(loop.reserve(), spec, {[](const auto&) {}, [](const auto&) {}});
    for (;;)
      ::pause();
  }
  CHECK(eventually([&] { return runs(mark); }));
  ::kill(daemon, SIGKILL);
  ::waitpid(daemon, nullptr, 0);
  CHECK(eventually([&] { return !runs(mark); }, 2s));
}

TEST_CASE("nothing of a sandbox runs 2 s after our process was killed (INV-11)") {
  auto mark = unlikely_seconds();
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  pid_t daemon = ::fork();
  if (daemon == 0) {
    process_loop loop;
    process_spec spec;
    spec.argv = {"/usr/bin/bwrap",
                 "--unshare-user",
                 "--unshare-pid",
                 "--die-with-parent",
                 "--as-pid-1",
                 "--ro-bind",
                 "/",
                 "/",
                 "--proc",
                 "/proc",
                 "/bin/sh",
                 "-c",
                 "trap '' TERM HUP; setsid sh -c 'setsid sleep " + mark + " & sleep " + mark + "' & echo up; sleep " +
                     mark};
    loop.start(
        loop.reserve(), spec,
        {[&](const std::string& text) { (void)!::write(ready[1], text.data(), text.size()); }, [](const auto&) {}});
    for (;;)
      ::pause();
  }
  char text[3] = "";
  REQUIRE(::read(ready[0], text, 2) == 2);
  REQUIRE(std::string{text} == "up");
  REQUIRE(runs(mark));
  ::kill(daemon, SIGKILL);
  ::waitpid(daemon, nullptr, 0);
  // the mark is in this very check's own memory only, never in its command line
  CHECK(eventually([&] { return !runs(mark); }, 2s));
  ::close(ready[0]);
  ::close(ready[1]);
}
#endif

TEST_CASE("root can start a process as another user") {
  if (::geteuid() != 0) return;
  auto spec = shell("id -u; id -g; id -G; echo ok > /dev/stderr");
  spec.run_as = process_user{65534, 65533};
  spec.output = output_kind::pty;
  CHECK(run(std::move(spec)).output == "65534\n65533\n65533\nok\n");
}

TEST_CASE("a control group's daemons die with their build") {
  cgroup_root root{"test-" + std::to_string(::getpid())};
  if (!root.usable()) {
    WARN("no control groups here");
    return;
  }
  auto mark = unlikely_seconds();
  auto group = root.make("build-1", {0, 50});
  REQUIRE(group);
  auto spec = shell("setsid sh -c 'setsid sleep " + mark + " & sleep " + mark + "' & sleep 0.2; echo done");
  spec.group = *group;
  CHECK(run(std::move(spec)).output == "done\n");
  CHECK(eventually([&] { return !runs(mark); }, 2s));
  CHECK((*group)->remove(2s));
  CHECK(root.sweep());
}

TEST_CASE("a control group that is gone when its files are read has nothing in it, and ends nobody") {
  // a directory in place of a file can be opened, and not be read: as a file of a group that was removed meanwhile
  std::string dir = (std::filesystem::temp_directory_path() / "coppice-cgroup-XXXXXX").string();
  REQUIRE(mkdtemp(dir.data()) != nullptr);
  for (std::string name : {"cgroup.procs", "cpu.stat", "cpuacct.stat", "cpuacct.usage_user", "cpuacct.usage_sys",
                           "memory.current", "memory.peak", "memory.events", "memory.usage_in_bytes",
                           "memory.max_usage_in_bytes", "memory.oom_control", "pids.events"})
    std::filesystem::create_directory(dir + "/" + name);
  {
    cgroup group{{dir}, {}};
    group.kill();
    CHECK(group.usage().memory_bytes == 0);
    CHECK_FALSE(group.usage().oom);
  }
  std::filesystem::remove_all(dir);
}

TEST_CASE("a fork bomb reaches its limit of processes and is killed") {
  cgroup_root root{"test-" + std::to_string(::getpid())};
  auto group = root.make("build-2", {0, 30});
  REQUIRE(group);
  if (!*group) return;
  auto mark = unlikely_seconds();
  auto spec = shell("b() { sleep " + mark + " & b & b & wait; }; b");
  spec.group = *group;
  spec.limits.timeout = 500ms;
  spec.grace = 100ms;
  auto r = run(std::move(spec));
  CHECK(r.exit.pids);
  CHECK((*group)->remove(5s));
  CHECK_FALSE(runs(mark));
  CHECK(root.sweep());
}

TEST_CASE("the sweep at the start kills what an earlier process left (INV-11)") {
  cgroup_root root{"test-" + std::to_string(::getpid())};
  if (!root.usable()) return;
  auto mark = unlikely_seconds();
  pid_t earlier = ::fork();
  if (earlier == 0) {
    auto group = root.make("build-3", {});
    for (const auto& procs : (*group)->files().procs)
      (void)!::write(procs.get(), "0", 1);
    ::setsid();
    ::execl("/bin/sleep", "sleep", mark.c_str(), nullptr);
    ::_exit(1);
  }
  REQUIRE(eventually([&] { return runs(mark); }));
  std::thread reaper{[&] { ::waitpid(earlier, nullptr, 0); }};
  CHECK(root.sweep());
  reaper.join();
  CHECK_FALSE(runs(mark));
}
