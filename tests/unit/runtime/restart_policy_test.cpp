#include "runtime/restart_policy.hpp"

#include "tests/support/seed.hpp"

#include <catch2/catch.hpp>

using namespace coppice::rt;
using namespace std::chrono_literals;

namespace {

using policy = restart_policy;

restart_options plain() {
  restart_options o;
  o.max_restarts = 1000;
  o.jitter_percent = 0;
  return o;
}

std::chrono::nanoseconds delay_of(const policy::decision& d) {
  REQUIRE(std::holds_alternative<policy::restart_after>(d));
  return std::get<policy::restart_after>(d).delay;
}

policy::decision die(policy& p, policy::time now, restart_kind kind = restart_kind::permanent, bool abnormal = true,
                     policy::child_id child = 1) {
  return p.step(policy::ended{child, kind, abnormal}, now);
}

} // namespace

TEST_CASE("backoff doubles from 100 ms to 30 s") {
  policy p{plain(), 1};
  policy::time now = 1h;
  for (auto expected : {100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}) {
    p.step(policy::started{1}, now);
    CHECK(delay_of(die(p, now)) == std::chrono::milliseconds{expected});
    now += 1ms;
  }
}

TEST_CASE("a child that lived a calm minute starts again at the first backoff") {
  policy p{plain(), 1};
  p.step(policy::started{1}, 1h);
  die(p, 1h);
  CHECK(delay_of(die(p, 1h + 59s)) == 200ms);
  p.step(policy::started{1}, 2h);
  CHECK(delay_of(die(p, 2h + 60s)) == 100ms);
}

TEST_CASE("children do not share their backoff") {
  policy p{plain(), 1};
  die(p, 1h);
  die(p, 1h);
  CHECK(delay_of(die(p, 1h, restart_kind::permanent, true, 2)) == 100ms);
}

TEST_CASE("a removed child leaves no backoff to its namesake") {
  policy p{plain(), 1};
  p.step(policy::started{1}, 1h);
  die(p, 1h);
  p.step(policy::removed{1}, 1h);
  p.step(policy::started{1}, 1h);
  CHECK(delay_of(die(p, 1h)) == 100ms);
}

TEST_CASE("jitter stays within 20 percent and does vary") {
  auto o = plain();
  o.jitter_percent = 20;
  policy p{o, 7};
  std::chrono::nanoseconds least = 1h, most = 0ns;
  for (policy::child_id child = 1; child <= 500; ++child) {
    auto d = delay_of(die(p, 1h, restart_kind::permanent, true, child));
    least = std::min(least, d);
    most = std::max(most, d);
  }
  CHECK(least >= 80ms);
  CHECK(least < 85ms);
  CHECK(most <= 120ms);
  CHECK(most > 115ms);
}

TEST_CASE("a temporary child is never restarted and its deaths are not counted") {
  auto o = plain();
  o.max_restarts = 1;
  policy p{o, 1};
  for (int i = 0; i < 10; ++i)
    CHECK(die(p, 1h, restart_kind::temporary) == policy::decision{policy::leave_ended{}});
  CHECK(delay_of(die(p, 1h)) == 100ms);
}

TEST_CASE("deaths that are counted for a child alone cost neither its supervisor nor its siblings") {
  auto o = plain();
  o.max_restarts = 1;
  o.within = 10s;
  policy p{o, 1};
  auto own = [&](policy::child_id child, policy::time now) {
    return p.step(policy::ended{child, restart_kind::permanent, true, 2}, now);
  };
  for (policy::child_id child : {1, 2})
    p.step(policy::started{child}, 1h);
  for (policy::child_id child : {1, 2})
    CHECK(delay_of(own(child, 1h)) == 100ms);
  for (policy::child_id child : {1, 2})
    CHECK(delay_of(own(child, 1h + 10s)) == 200ms);
  CHECK(p.recent_deaths(1h + 10s) == 0);
  CHECK(own(1, 1h + 10s) == policy::decision{policy::spent{}});
  CHECK(delay_of(own(2, 1h + 11s)) == 400ms); // the first left the window
  CHECK(delay_of(die(p, 1h + 11s, restart_kind::permanent, true, 3)) == 100ms);
}

TEST_CASE("a transient child is restarted only after an abnormal end") {
  policy p{plain(), 1};
  CHECK(die(p, 1h, restart_kind::transient, false) == policy::decision{policy::leave_ended{}});
  CHECK(delay_of(die(p, 1h, restart_kind::transient, true)) == 100ms);
}

TEST_CASE("one death more than allowed inside the window gives up") {
  auto o = plain();
  o.max_restarts = 3;
  o.within = 10s;
  policy p{o, 1};
  for (int i = 0; i < 3; ++i)
    delay_of(die(p, 1h + i * 1s));
  CHECK(die(p, 1h + 10s) == policy::decision{policy::give_up{}});
}

TEST_CASE("a death that left the window no longer counts") {
  auto o = plain();
  o.max_restarts = 3;
  o.within = 10s;
  policy p{o, 1};
  for (int i = 0; i < 3; ++i)
    delay_of(die(p, 1h + i * 1s));
  delay_of(die(p, 1h + 10s + 1ns));
}

namespace {

/// The rules again, as slowly and plainly as possible: everything is recomputed from the whole history.
struct reference {
  struct death {
    policy::child_id child;
    policy::time at;
    bool after_calm;
    policy::child_id counts_for; // 0: the supervisor
  };
  restart_options o;
  std::vector<death> deaths;
  std::map<policy::child_id, policy::time> started;

  enum class outcome { leave, restart, spent, give_up };
  std::pair<outcome, std::chrono::nanoseconds> end(const policy::ended& e, policy::time now) {
    if (e.kind == restart_kind::temporary || (e.kind == restart_kind::transient && !e.abnormal)) {
      forget(e.child);
      return {outcome::leave, 0ns};
    }
    deaths.push_back({e.child, now, now - started[e.child] >= o.calm, e.own_restarts_max > 0 ? e.child : 0});
    std::size_t recent = 0;
    for (auto& d : deaths)
      recent += now - d.at <= o.within && d.counts_for == deaths.back().counts_for;
    if (e.own_restarts_max > 0 && recent > e.own_restarts_max) {
      forget(e.child);
      return {outcome::spent, 0ns};
    }
    if (e.own_restarts_max == 0 && recent > o.max_restarts) return {outcome::give_up, 0ns};
    std::chrono::nanoseconds delay = o.backoff_first;
    bool own = false; // the row of this child's deaths since it was last calm
    for (auto i = deaths.rbegin(); i != deaths.rend(); ++i) {
      if (i->child != e.child) continue;
      if (own) delay = std::min<std::chrono::nanoseconds>(2 * delay, o.backoff_max);
      own = true;
      if (i->after_calm) break;
    }
    return {outcome::restart, std::min<std::chrono::nanoseconds>(delay, o.backoff_max)};
  }
  /// Its deaths still count for the supervisor, but belong to nobody.
  void forget(policy::child_id child) {
    started.erase(child);
    std::erase_if(deaths, [&](auto& d) { return d.counts_for == child; });
    for (auto& d : deaths)
      if (d.child == child) d.child = 0;
  }
};

} // namespace

TEST_CASE("the policy agrees with its reference on random histories") {
  const auto seed = coppice::test::seed_or(20261122);
  CAPTURE(seed);
  std::mt19937_64 random{seed};
  auto below = [&](std::uint64_t n) { return random() % n; };
  for (int history = 0; history < 300; ++history) {
    restart_options o;
    o.max_restarts = below(30);
    o.within = std::chrono::milliseconds{1 + below(20'000)};
    o.backoff_first = std::chrono::milliseconds{1 + below(500)};
    o.backoff_max = std::chrono::milliseconds{500 + below(5000)};
    o.calm = std::chrono::milliseconds{1 + below(10'000)};
    o.jitter_percent = static_cast<unsigned>(below(50));
    policy p{o, random()};
    reference r{o, {}, {}};
    policy::time now = 1h;
    for (int i = 0; i < 200; ++i) {
      now += std::chrono::milliseconds{below(2000)};
      const policy::child_id child = 1 + below(4);
      if (below(10) == 0) {
        p.step(policy::removed{child}, now);
        r.forget(child);
        continue;
      }
      if (below(3) > 0) {
        p.step(policy::started{child}, now);
        r.started[child] = now;
        now += std::chrono::milliseconds{below(8000)};
      }
      // of some children, deaths are their own
      const policy::ended e{child, static_cast<restart_kind>(below(3)), below(2) == 0, child % 2 ? 0 : 1 + child * 2};
      const auto got = p.step(e, now);
      const auto [outcome, delay] = r.end(e, now);
      CAPTURE(history, i);
      if (outcome == reference::outcome::leave) REQUIRE(std::holds_alternative<policy::leave_ended>(got));
      if (outcome == reference::outcome::spent) REQUIRE(std::holds_alternative<policy::spent>(got));
      if (outcome == reference::outcome::give_up) {
        REQUIRE(std::holds_alternative<policy::give_up>(got));
        break;
      }
      if (outcome == reference::outcome::restart) {
        const auto spread = delay / 100 * o.jitter_percent;
        REQUIRE(delay_of(got) >= delay - spread);
        REQUIRE(delay_of(got) <= delay + spread);
      }
    }
  }
}
