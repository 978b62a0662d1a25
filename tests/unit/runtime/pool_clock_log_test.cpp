#include "runtime/clock.hpp"
#include "runtime/log.hpp"
#include "runtime/pool.hpp"
#include "runtime/signals.hpp"

#include <catch2/catch.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <latch>
#include <stdexcept>
#include <thread>

using namespace coppice::rt;
using namespace std::chrono_literals;

TEST_CASE("a full pool refuses a job instead of blocking") {
  std::latch entered{1}, release{1};
  pool p{1, 2};
  REQUIRE(p.post([&] {
    entered.count_down();
    release.wait();
  }));
  entered.wait();
  CHECK(p.post([] {}));
  CHECK(p.post([] {}));
  CHECK(!p.post([] {}));
  CHECK(p.queued() == 2);
  release.count_down();
}

TEST_CASE("a closed pool takes no job and runs none that waited") {
  std::latch entered{1}, release{1};
  std::atomic<int> ran{0};
  pool p{1, 10};
  p.post([&] {
    entered.count_down();
    release.wait();
  });
  entered.wait();
  p.post([&] { ++ran; });
  std::thread helper{[&] {
    while (p.queued() > 0)
      std::this_thread::yield(); // close() has dropped the queue
    release.count_down();
  }};
  p.close();
  helper.join();
  CHECK(ran == 0);
  CHECK(!p.post([&] { ++ran; }));
}

TEST_CASE("a job that throws does not take its thread with it") {
  std::latch done{1};
  pool p{1, 10};
  p.post([] { throw std::runtime_error("bug"); });
  p.post([&] { done.count_down(); });
  done.wait();
  CHECK(p.failed() == 1);
}

TEST_CASE("post_and_send reports the result, or the text of what was thrown") {
  inline_executor here;
  int result = 0;
  std::string failure;
  auto failed = [&](std::string text) { failure = std::move(text); };
  CHECK(post_and_send(
      here, [] { return 7; }, [&](int x) { result = x; }, failed));
  CHECK(result == 7);
  CHECK(failure.empty());
  CHECK(post_and_send(
      here, []() -> int { throw std::runtime_error("disk on fire"); }, [](int) {}, failed));
  CHECK(failure == "disk on fire");
}

TEST_CASE("boot_clock does not go backwards and agrees with itself in nanoseconds") {
  const auto a = boot_clock::now();
  const auto b = boot_clock::now();
  CHECK(b >= a);
  CHECK(b - a < 10s);
}

TEST_CASE("a manual clock moves only when told, both its times together") {
  manual_clock c;
  const auto t = c.now();
  const auto w = c.wall_now();
  CHECK(c.now() == t);
  c.advance(5s);
  CHECK(c.now() - t == 5s);
  CHECK(c.wall_now() - w == 5s);
}

TEST_CASE("log lines below the level are dropped, and data cannot forge a line") {
  std::vector<std::string> lines;
  log::divert([&](log::level, std::string_view actor, std::string_view text) {
    lines.push_back(std::string{actor} + "|" + std::string{text});
  });
  log::info("GATEWAY", "admitted name={}", "x\n2026 error LEDGER forged\x1b[0m");
  log::set_level(log::level::warn);
  log::info("GATEWAY", "not this");
  log::warn("GATEWAY", "but this");
  log::divert({});
  log::error("GATEWAY", "nobody listens");
  CHECK(lines ==
        std::vector<std::string>{"GATEWAY|admitted name=x\\n2026 error LEDGER forged\\x1b[0m", "GATEWAY|but this"});
}

TEST_CASE("wake and ordinary signals reach the thread that waits for them") {
  // in a child process: the signal mask and SIGPIPE are the whole process's
  const auto child = ::fork();
  if (child == 0) {
    signals s;
    if (s.wait_for(0ms)) ::_exit(1);
    std::thread{[] { signals::wake(); }}.join();
    if (s.wait() != SIGUSR1) ::_exit(2);
    ::kill(::getpid(), SIGTERM);
    if (s.wait_for(1s) != SIGTERM) ::_exit(3);
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
