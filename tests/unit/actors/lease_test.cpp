#include "actors/lock/lease.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

using time_point = lease::time_point;

time_point at(std::chrono::milliseconds d) {
  return time_point{1h + d};
}

session_id session(std::uint8_t n) {
  session_id s;
  s.bytes[0] = n;
  return s;
}

} // namespace

TEST_CASE("a lease that was never acknowledged does not run") {
  lease l{lease_times{}};
  CHECK_FALSE(l.valid(at(0ms)));
}

TEST_CASE("a lease counts from when the keep-alive was sent, less the clocks' error and the guard") {
  lease l{lease_times{}};
  l.on_acknowledged(at(0ms));
  CHECK(l.deadline() == at(28'700ms)); // 30 s · 0.99 - 1 s
  CHECK(l.valid(at(28'699ms)));
  CHECK_FALSE(l.valid(at(28'700ms)));
}

TEST_CASE("acknowledgements in another order than sent never shorten a lease") {
  lease l{lease_times{}};
  l.on_acknowledged(at(5'000ms));
  l.on_acknowledged(at(0ms));
  CHECK(l.deadline() == at(33'700ms));
}

TEST_CASE("the holder stops before the ledger lets another begin") {
  lease_times t;
  lease holder{t};
  lease_table table{t};
  holder.on_acknowledged(at(0ms));  // sent
  table.renew(session(1), at(0ms)); // heard at the earliest moment possible
  auto over = at(0ms);
  while (table.expired(over).empty())
    over += 1s;
  CHECK(holder.deadline() + t.guard <= over);
}

TEST_CASE("a session that is not renewed ends once") {
  lease_table table{lease_times{}};
  table.renew(session(1), at(0ms));
  for (auto t = 0ms; t < 30'000ms; t += 5'000ms)
    CHECK(table.expired(at(t)).empty());
  CHECK(table.expired(at(30'000ms)) == std::vector{session(1)});
  CHECK(table.expired(at(35'000ms)).empty());
}

TEST_CASE("a renewed session goes on") {
  lease_table table{lease_times{}};
  table.renew(session(1), at(0ms));
  table.renew(session(2), at(0ms));
  for (auto t = 5'000ms; t <= 60'000ms; t += 5'000ms) {
    table.renew(session(1), at(t));
    auto over = table.expired(at(t));
    CHECK(over == (t == 30'000ms ? std::vector{session(2)} : std::vector<session_id>{}));
  }
}

TEST_CASE("a ledger that stood still ends nobody's lease for what it could not hear") {
  lease_table table{lease_times{}};
  table.renew(session(1), at(0ms));
  CHECK(table.expired(at(5'000ms)).empty());
  CHECK(table.expired(at(600'000ms)).empty()); // stopped, or the machine slept
  CHECK(table.expired(at(605'000ms)).empty());
  for (auto t = 610'000ms; t < 630'000ms; t += 5'000ms)
    CHECK(table.expired(at(t)).empty());
  CHECK(table.expired(at(630'000ms)) == std::vector{session(1)}); // a whole lease, then
}

TEST_CASE("a lease is longer than three intervals, the guard and the time to stop a build together") {
  lease_settings s;
  s.ttl = 10s;
  s.renew = 2s;
  s.guard = 1s;
  CHECK(lease_times_of(s, 2s)->lease_ttl == 10s);
  CHECK(lease_times_of(s, 2s)->renew_interval == 2s);
  CHECK(lease_times_of(s, 2s)->guard == 1s);
  auto refused = lease_times_of(s, 3s);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ec::invalid);
  CHECK(refused.error().what.find("lease.ttl 10000 ms is too short") == 0);
  s.renew = 0s;
  CHECK_FALSE(lease_times_of(s, 0s));
  CHECK(lease_times_of(lease_settings{}, 2s));
}
