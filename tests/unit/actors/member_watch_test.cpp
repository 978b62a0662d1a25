#include "actors/lock/member_watch.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

using table = member_watch<int>;

session_id session(unsigned char n) {
  session_id s;
  s.bytes.fill(n);
  return s;
}
inhash key(unsigned char n) {
  inhash k;
  k.bytes.fill(n);
  return k;
}
ledger::any_transaction start(unsigned char s, unsigned char k) {
  ledger::start t;
  t.key = key(k);
  t.who.session = session(s);
  return t;
}
ledger::changed row(unsigned char k, ledger::phase p) {
  ledger::changed c;
  ledger::lock_state l;
  l.key = key(k);
  l.phase = p;
  c.locks.push_back(l);
  return c;
}

} // namespace

TEST_CASE("a member hears of the rows that its session holds, and of no others") {
  table t;
  table::time_point now{1h};
  CHECK(t.watch(session(1), 1, now));
  CHECK(t.watch(session(2), 2, now));
  CHECK_FALSE(t.watch(session(1), 1, now));
  t.note(start(1, 7));
  t.note(start(3, 8)); // nobody's
  auto told = t.share(row(7, ledger::phase::building));
  REQUIRE(told.size() == 1);
  CHECK(told[0].first == 1);
  CHECK(told[0].second.locks.size() == 1);
  CHECK(t.share(row(8, ledger::phase::building)).empty());
}

TEST_CASE("a member hears that a row became free or realised, once, and again if it takes it again") {
  table t;
  t.watch(session(1), 1, table::time_point{1h});
  t.note(start(1, 7));
  CHECK(t.share(row(7, ledger::phase::free)).size() == 1);
  CHECK(t.share(row(7, ledger::phase::queued)).empty());
  ledger::reclaim r;
  r.key = key(7);
  r.who.session = session(1);
  t.note(r);
  CHECK(t.share(row(7, ledger::phase::realised)).size() == 1);
  CHECK(t.share(row(7, ledger::phase::realised)).empty());
}

TEST_CASE("a row that two sessions took is told to both, until it is free; who was forgotten hears nothing") {
  table t;
  table::time_point now{1h};
  for (unsigned char s = 1; s <= 3; ++s) {
    t.watch(session(s), s, now + (s == 3 ? 0s : 20s));
    t.note(start(s, 7));
  }
  t.note(start(1, 8));
  CHECK(t.share(row(7, ledger::phase::building)).size() == 3);
  t.forget_silent(now + table::silence_max);
  auto both = row(7, ledger::phase::free);
  both.locks.push_back(row(8, ledger::phase::building).locks[0]);
  auto told = t.share(both);
  REQUIRE(told.size() == 2);
  CHECK(told[0].first == 1);
  CHECK(told[0].second.locks.size() == 2);
  CHECK(told[1].first == 2);
  CHECK(told[1].second.locks.size() == 1);
  CHECK(t.share(row(7, ledger::phase::building)).empty());
  t.watch(session(3), 3, now + table::silence_max);
  t.note(start(3, 7));
  CHECK(t.share(row(7, ledger::phase::building)).size() == 1);
}

TEST_CASE("a member that says no more that it watches is forgotten") {
  table t;
  table::time_point now{1h};
  t.watch(session(1), 1, now);
  t.forget_silent(now + table::silence_max - 1s);
  CHECK(t.size() == 1);
  t.watch(session(1), 1, now + 20s);
  t.forget_silent(now + table::silence_max);
  CHECK(t.size() == 1);
  t.forget_silent(now + 20s + table::silence_max);
  CHECK(t.size() == 0);
}
