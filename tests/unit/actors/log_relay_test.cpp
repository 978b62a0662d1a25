#include "actors/build/log_relay.hpp"
#include "tests/unit/actors/fake_worker.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <catch2/catch.hpp>

#include <deque>
#include <fstream>
#include <mutex>
#include <thread>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

/// Adds up credits.
class fake_port final : public rt::process_port {
public:
  void start(rt::process_id, rt::process_spec, rt::process_observer) override {}
  void ack(rt::process_id, std::size_t bytes) override { acked += bytes; }
  void extend(rt::process_id, rt::boot_clock::time_point) override {}
  void cancel(rt::process_id, std::chrono::milliseconds) override {}
  std::atomic<std::size_t> acked{0};
};

/// Keeps jobs until told; refuses when `full`.
class slow_pool final : public rt::executor {
public:
  bool post(std::function<void()> job) override {
    std::lock_guard lock{mutex_};
    if (full) return false;
    jobs_.push_back(std::move(job));
    return true;
  }
  bool run_one() {
    std::function<void()> job;
    {
      std::lock_guard lock{mutex_};
      if (jobs_.empty()) return false;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
    return true;
  }
  std::atomic<bool> full{false};

private:
  std::mutex mutex_;
  std::deque<std::function<void()>> jobs_;
};

bool eventually(const std::function<bool()>& f, std::chrono::milliseconds within = 5s) {
  for (auto end = std::chrono::steady_clock::now() + within; std::chrono::steady_clock::now() < end;) {
    if (f()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return f();
}

struct setting {
  setting() {
    std::string pattern = std::filesystem::temp_directory_path() / "coppice-log-XXXXXX";
    dir = ::mkdtemp(pattern.data());
  }
  ~setting() { std::filesystem::remove_all(dir); }
  log_relay_actor start(rt::executor& pool, std::chrono::milliseconds interval = 0ms) {
    auto worker = rt::spawn<fake_worker>(system, fake_worker::on_exited{[](const build_exit&) {}},
                                         fake_worker::on_progress{[this](const step_progress& p) {
                                           std::lock_guard lock{mutex};
                                           progress.push_back(p);
                                         }});
    std::ofstream{dir / "log"}; // as WORKER makes it
    return rt::spawn<log_relay_state>(system, log_relay_state::config{&pool, &port, 1, dir / "log", {}, interval},
                                      worker);
  }
  std::string finish(const log_relay_actor& relay) {
    caf::scoped_actor me{system};
    std::string tail;
    me->request(relay, 5s, atom::done_v)
        .receive([&](std::string& t) { tail = t; }, [](const caf::error& e) { FAIL(to_string(from_caf(e))); });
    return tail;
  }
  std::string written() {
    std::ifstream in{dir / "log"};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
  std::vector<step_progress> told() {
    std::lock_guard lock{mutex};
    return progress;
  }
  std::filesystem::path dir;
  fake_port port;
  std::mutex mutex;
  std::vector<step_progress> progress;
  caf::actor_system_config cfg;
  caf::actor_system system{cfg};
};

} // namespace

TEST_CASE("the last line is what a terminal would show") {
  log_text t;
  t.feed("first\nsecond\n   \n");
  CHECK(t.last_line() == "second");
  t.feed("10 %\r20 %\r");
  CHECK(t.last_line() == "20 %");
  t.feed("\ndone\r\n");
  CHECK(t.last_line() == "done");
}

TEST_CASE("phases are recognised, also in pieces, and are no lines") {
  log_text t;
  t.feed("x\n@nix {\"action\":\"setPh");
  CHECK(t.last_line() == "x");
  t.feed("ase\",\"phase\":\"buildPhase\"}\n");
  CHECK(t.phase() == "buildPhase");
  CHECK(t.last_line() == "x");
  CHECK(t.tail() == "x\n");
}

TEST_CASE("lines that only look like phases do no harm") {
  log_text t;
  for (const char* line :
       {"@nix \n", "@nix {\n", "@nix []\n", "@nix {\"action\":7}\n", "@nix {\"action\":\"setPhase\",\"phase\":[]}\n"})
    t.feed(line);
  CHECK(t.phase().empty());
}

TEST_CASE("a log's tail has the last whole lines") {
  log_text t;
  for (int i = 0; i < 10'000; ++i)
    t.feed("line " + std::to_string(i) + "\n");
  t.feed("end");
  auto tail = t.tail();
  CHECK(tail.size() <= log_tail_bytes_max);
  CHECK(tail.size() > log_tail_bytes_max - 20);
  CHECK(tail.starts_with("line "));
  CHECK(tail.ends_with("line 9999\nend"));
}

TEST_CASE("a tail is the same however the log is cut into pieces") {
  std::string log;
  for (int i = 0; i < 3'000; ++i)
    log += "line " + std::to_string(i) + std::string(static_cast<std::size_t>(i % 90), 'x') + "\n";
  log_text at_once, in_pieces;
  at_once.feed(log);
  for (std::size_t i = 0; i < log.size(); i += 7)
    in_pieces.feed(std::string_view{log}.substr(i, 7));
  CHECK(at_once.tail() == in_pieces.tail());
}

TEST_CASE("ten megabytes without a newline leave one cut line") {
  log_text t;
  for (int i = 0; i < 1'000; ++i)
    t.feed(std::string(10'000, 'a'));
  CHECK(t.last_line() == std::string(log_text::line_bytes_max, 'a'));
  CHECK(t.tail().size() <= log_tail_bytes_max);
  t.feed("\nnext\n");
  CHECK(t.last_line() == "next");
}

TEST_CASE("bytes are acknowledged only once they are in the file") {
  setting s;
  slow_pool pool;
  auto relay = s.start(pool);
  caf::anon_send(relay, atom::output_v, std::string{"one\n"});
  caf::anon_send(relay, atom::output_v, std::string{"two\n"});
  std::this_thread::sleep_for(50ms);
  CHECK(s.port.acked == 0);
  REQUIRE(eventually([&] { return pool.run_one(); }));
  REQUIRE(eventually([&] { return s.port.acked == 4; }));
  CHECK(s.written() == "one\n");
  REQUIRE(eventually([&] { return pool.run_one(); }));
  CHECK(s.finish(relay) == "one\ntwo\n");
  CHECK(s.written() == "one\ntwo\n");
}

TEST_CASE("a full pool is asked again") {
  setting s;
  slow_pool pool;
  pool.full = true;
  auto relay = s.start(pool);
  caf::anon_send(relay, atom::output_v, std::string{"one\n"});
  std::this_thread::sleep_for(100ms);
  pool.full = false;
  REQUIRE(eventually([&] { return pool.run_one(); }));
  CHECK(s.finish(relay) == "one\n");
  CHECK(s.written() == "one\n");
}

TEST_CASE("a log that cannot be written does not stop the build") {
  setting s;
  rt::inline_executor pool;
  std::filesystem::create_directory(s.dir / "log");
  auto relay = s.start(pool);
  for (int i = 0; i < 3; ++i)
    caf::anon_send(relay, atom::output_v, std::string{"one\n"});
  CHECK(s.finish(relay) == "one\none\none\n");
  CHECK(s.port.acked == 12);
}

TEST_CASE("a quick log tells its progress at most once per interval, and its end") {
  setting s;
  rt::inline_executor pool;
  auto relay = s.start(pool, 200ms);
  for (int i = 0; i < 100; ++i)
    caf::anon_send(relay, atom::output_v, "line " + std::to_string(i) + "\n");
  s.finish(relay);
  REQUIRE(eventually([&] { return !s.told().empty() && s.told().back().last_line == "line 99"; }));
  CHECK(s.told().size() <= 3);
}

TEST_CASE("phase and last line are told to the worker") {
  setting s;
  rt::inline_executor pool;
  auto relay = s.start(pool);
  caf::anon_send(relay, atom::output_v,
                 std::string{"@nix {\"action\":\"setPhase\",\"phase\":\"unpackPhase\"}\n\033[1mhello\n"});
  REQUIRE(eventually([&] { return !s.told().empty(); }));
  CHECK(s.told().back().phase == "unpackPhase");
  CHECK(s.told().back().last_line == "hello");
  s.finish(relay);
}
