#include "runtime/cgroup.hpp"
#include "runtime/process_loop.hpp"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

/// apps/jail under a process loop.
using namespace coppice::rt;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

bool eventually(const std::function<bool()>& f) {
  for (auto end = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < end;) {
    if (f()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return f();
}

std::string text_of(const fs::path& file) {
  std::ifstream in{file};
  std::string text;
  std::getline(in, text, '\0');
  return text;
}

/// Whether a process whose command line contains `mark` is there; zombies are not.
bool runs(const std::string& mark) {
  for (const auto& entry : fs::directory_iterator{"/proc"})
    if (std::ifstream in{entry.path() / "cmdline"}; in) {
      const std::string line{std::istreambuf_iterator<char>{in}, {}};
      if (line.find(mark) != line.npos) return true;
    }
  return false;
}

std::string new_mark() {
  static int counter = 0;
  return std::to_string(2'000'000 + ::getpid()) + "." + std::to_string(++counter + 100);
}

/// A group that can be frozen, by the one version of control groups or the other.
struct freezable {
  explicit freezable(int version) : name("jail-" + std::to_string(::getpid())) {
    const std::vector<std::string> v2{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
    if (version == 1) hierarchies = {"/sys/fs/cgroup/freezer"};
    for (auto& dir : v2)
      if (version == 2 && hierarchies.empty() && fs::exists(dir + "/cgroup.controllers")) hierarchies = {dir};
    root = std::make_unique<cgroup_root>(name, hierarchies);
    if (!root->usable()) return;
    auto made = root->make("build", {});
    REQUIRE(made);
    if ((*made)->files().freezer) group = *made;
  }
  ~freezable() {
    if (group) CHECK(group->remove(5s));
  }
  bool frozen() const {
    const auto dir = hierarchies[0] + "/coppice-" + name + "/build";
    // version 1 says FREEZING for good of what was caught in a vfork, which stands still as well
    return text_of(dir + "/freezer.state").starts_with("FR") ||
           text_of(dir + "/cgroup.events").find("frozen 1") != std::string::npos;
  }

  std::string name;
  std::vector<std::string> hierarchies;
  std::unique_ptr<cgroup_root> root;
  std::shared_ptr<cgroup> group; ///< null where this machine has none
};

process_spec jailed(std::string script, std::chrono::milliseconds lease, std::chrono::milliseconds freeze_max = 1h) {
  process_spec spec;
  spec.argv = {"/bin/sh", "-c", std::move(script)};
  spec.env = {"PATH=/usr/bin:/bin"};
  spec.watchdog = process_watchdog{COPPICE_BIN_DIR "/coppice-jail", boot_clock::now() + lease, 0ms, freeze_max};
  return spec;
}

/// One process of a loop, and what was told of it.
class running {
public:
  explicit running(process_spec spec) {
    id = loop.reserve();
    process_observer o;
    o.output = [this](std::string piece) {
      loop.ack(id, piece.size());
      std::lock_guard lock{mutex_};
      output_ += piece;
    };
    o.frozen = [this] { ++frozen; };
    o.thawed = [this](std::chrono::milliseconds ms) { stood_ms += ms.count(); };
    o.exited = [this](const process_exit& e) { exit_.set_value(e); };
    loop.start(id, std::move(spec), std::move(o));
  }
  bool ended_within(std::chrono::milliseconds d) { return future_.wait_for(d) == std::future_status::ready; }
  process_exit wait() {
    REQUIRE(ended_within(20s));
    return future_.get();
  }
  std::string output() {
    std::lock_guard lock{mutex_};
    return output_;
  }

  process_id id;
  std::atomic<int> frozen{0};
  std::atomic<std::int64_t> stood_ms{0};

private:
  std::mutex mutex_;
  std::string output_;
  std::promise<process_exit> exit_;
  std::future<process_exit> future_ = exit_.get_future();

public:
  process_loop loop; ///< ends first
};

/// A name for a file that a script waits for.
struct signal_file {
  signal_file() : path(fs::temp_directory_path() / ("coppice-jail-" + new_mark())) {}
  ~signal_file() { fs::remove(path); }
  void give() const { std::ofstream{path}; }
  std::string wait() const { return "while ! [ -e " + path.string() + " ]; do sleep 0.01; done; "; }
  fs::path path;
};

} // namespace

TEST_CASE("an end goes through the watchdog as it is") {
  SECTION("an exit code") { CHECK(running{jailed("exit 7", 1h)}.wait().code == 7); }
  SECTION("a signal") { CHECK(running{jailed("kill -SEGV $$", 1h)}.wait().signal == SIGSEGV); }
  SECTION("a program that is not there") {
    auto spec = jailed("", 1h);
    spec.argv = {"/no/such/program"};
    auto e = running{std::move(spec)}.wait();
    CHECK(e.end == process_end::not_started);
    CHECK(e.text == "cannot start it: /no/such/program: No such file or directory");
  }
  SECTION("a watchdog that is not there") {
    auto spec = jailed("", 1h);
    spec.watchdog->program = "/no/such/jail";
    CHECK(running{std::move(spec)}.wait().text.find("cannot start /no/such/jail: ") == 0);
  }
}

TEST_CASE("descriptors, report and user reach the program; the watchdog's own do not") {
  auto spec = jailed("ls /proc/$$/fd; echo report >&4; id -u", 1h);
  spec.fds = {std::make_shared<unique_fd>(::open("/dev/null", O_RDONLY | O_CLOEXEC))};
  spec.with_report = true;
  if (::geteuid() == 0) spec.run_as = process_user{65534, 65533};
  freezable f{2};
  spec.group = f.group;
  running r{std::move(spec)};
  CHECK(r.wait().report == "report\n");
  CHECK(r.output() == "0\n1\n2\n3\n4\n" + std::to_string(::geteuid() == 0 ? 65534 : ::geteuid()) + "\n");
}

TEST_CASE("a polite end of the whole process group reaches the program, and the watchdog waits for it") {
  signal_file trapped;
  running r{jailed("trap 'echo bye; exit 5' TERM; touch " + trapped.path.string() + "; while :; do sleep 0.01; done", 1h)};
  REQUIRE(eventually([&] { return fs::exists(trapped.path); }));
  r.loop.cancel(r.id, 20s);
  auto e = r.wait();
  CHECK(e.end == process_end::cancelled);
  CHECK(e.code == 5);
  CHECK(r.output().find("bye\n") != std::string::npos);
}

TEST_CASE("a build whose lease ends stands still, and goes on where it was once that is extended") {
  freezable f{GENERATE(1, 2)};
  if (!f.group) {
    WARN("no control groups of this version here");
    return;
  }
  signal_file go;
  auto spec = jailed("(" + go.wait() + " echo child) & " + go.wait() + " wait; exit 3", 1s);
  spec.group = f.group;
  spec.limits.silence = 2s;
  running r{std::move(spec)};
  REQUIRE(eventually([&] { return r.frozen > 0 && f.frozen(); }));
  go.give();
  CHECK_FALSE(r.ended_within(2s)); // nor is it silent: it cannot speak
  CHECK(r.stood_ms == 0);
  r.loop.extend(r.id, boot_clock::now() + 1h);
  auto e = r.wait();
  CHECK(e.end == process_end::exited);
  CHECK(e.code == 3);
  CHECK(r.output() == "child\n");
  CHECK(r.frozen == 1);
  CHECK(r.stood_ms >= 2'000);
  CHECK(e.wall < 20s);
}

TEST_CASE("a builder whose lease was over before it could be started does not begin") {
  freezable f{2};
  signal_file begun;
  auto spec = jailed("touch " + begun.path.string(), -1ms);
  spec.group = f.group;
  running r{std::move(spec)};
  CHECK(r.wait().end == process_end::lease_over);
  CHECK(r.frozen == 0);
  CHECK_FALSE(fs::exists(begun.path));
}

TEST_CASE("a lease that is extended in time disturbs nothing") {
  freezable f{GENERATE(1, 2)};
  if (!f.group) return;
  auto spec = jailed("sleep 2; echo done", 1s);
  spec.group = f.group;
  running r{std::move(spec)};
  r.loop.extend(r.id, boot_clock::now() + 1h);
  CHECK(r.wait().code == 0);
  CHECK(r.frozen == 0);
}

TEST_CASE("a build that stood still for freeze_max is killed, with all it has left behind") {
  freezable f{GENERATE(1, 2)};
  if (!f.group) return;
  auto mark = new_mark();
  auto spec = jailed("setsid sh -c 'setsid sleep " + mark + " & sleep " + mark + "' & sleep " + mark, 1s, 200ms);
  spec.group = f.group;
  running r{std::move(spec)};
  auto e = r.wait();
  CHECK(e.end == process_end::lease_over);
  CHECK(r.frozen == 1);
  CHECK(eventually([&] { return !runs(mark); }));
}

TEST_CASE("a build that cannot be frozen is killed when its lease ends") {
  auto mark = new_mark();
  running r{jailed("sleep " + mark, 1s)};
  CHECK(r.wait().end == process_end::lease_over);
  CHECK(r.frozen == 0);
  CHECK(eventually([&] { return !runs(mark); }));
}

TEST_CASE("a frozen build that is cancelled is not waited for") {
  freezable f{GENERATE(1, 2)};
  if (!f.group) return;
  auto mark = new_mark();
  auto spec = jailed("trap '' TERM; sleep " + mark, 1s);
  spec.group = f.group;
  running r{std::move(spec)};
  REQUIRE(eventually([&] { return r.frozen > 0; }));
  r.loop.cancel(r.id, 1h);
  CHECK(r.wait().end == process_end::cancelled);
  CHECK(eventually([&] { return !runs(mark); }));
}

namespace {

/// A daemon: a process of ours with a loop that runs this, and writes down how it ended if it is told where.
pid_t daemon_with(const process_spec& spec, const fs::path& told = {}) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  process_loop loop;
  const auto id = loop.reserve();
  loop.start(id, spec, {[&](const std::string& bytes) { loop.ack(id, bytes.size()); },
                        [&](const process_exit& e) {
                          if (!told.empty()) std::ofstream{told} << (e.end == process_end::exited ? "exited" : "ended");
                        }});
  for (;;)
    ::pause();
}

void end(pid_t daemon) {
  ::kill(daemon, SIGKILL);
  ::waitpid(daemon, nullptr, 0);
}

} // namespace

TEST_CASE("a build does not outlive its daemon, nor does what it put into the background (INV-11)") {
  freezable f{GENERATE(1, 2)};
  if (!f.group) return;
  const bool frozen = GENERATE(false, true);
  auto mark = new_mark();
  auto spec = jailed("setsid sleep " + mark + " & sleep " + mark, frozen ? 1s : 1h);
  spec.group = f.group;
  auto daemon = daemon_with(spec);
  CHECK(eventually([&] { return frozen ? f.frozen() : runs(mark); }));
  end(daemon);
  CHECK(eventually([&] { return !runs(mark); }));
}

TEST_CASE("a watchdog does its work while its daemon stands still") {
  freezable f{GENERATE(1, 2)};
  if (!f.group) return;
  auto mark = new_mark();
  auto spec = jailed("sleep " + mark, 1s, 500ms);
  spec.group = f.group;
  auto daemon = daemon_with(spec);
  CHECK(eventually([&] { return runs(mark); }));
  ::kill(daemon, SIGSTOP);
  CHECK(eventually([&] { return f.frozen() || !runs(mark); }));
  CHECK(eventually([&] { return !runs(mark); }));
  end(daemon);
}

TEST_CASE("what a build said while its daemon stood still is heard before it is taken for silent") {
  signal_file go, told;
  auto spec = jailed("while ! [ -e " + go.path.string() + " ]; do echo; sleep 0.05; done", 1h);
  spec.limits.silence = 700ms;
  if (GENERATE(false, true)) spec.watchdog.reset();
  auto daemon = daemon_with(spec, told.path);
  CHECK(eventually([&] { return runs(go.path.string()); }));
  ::kill(daemon, SIGSTOP);
  std::this_thread::sleep_for(1500ms); // how long it stands still, not what is waited for
  ::kill(daemon, SIGCONT);
  std::this_thread::sleep_for(200ms); // for a wrong end to be decided
  go.give();
  CHECK(eventually([&] { return !text_of(told.path).empty(); }));
  CHECK(text_of(told.path) == "exited");
  end(daemon);
}
