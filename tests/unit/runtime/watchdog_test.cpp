#include "runtime/watchdog.hpp"

#include <catch2/catch.hpp>

using namespace coppice::rt;
using namespace std::chrono_literals;
using order = watchdog::order;

namespace {

watchdog::terms terms() {
  return {100s, 2s, 60s, true};
}

} // namespace

TEST_CASE("a build runs until its grace before the end of the lease, then stands still, then is killed") {
  watchdog w{terms()};
  CHECK(w.at(50s) == order::run);
  CHECK(w.wake() == 98s);
  CHECK(w.at(98s - 1ms) == order::run);
  CHECK(w.at(98s) == order::freeze);
  CHECK(w.wake() == 158s);
  CHECK(w.at(158s - 1ms) == order::freeze);
  CHECK(w.at(158s) == order::kill);
  CHECK(w.wake() == watchdog::never);
}

TEST_CASE("a lease that is extended in time freezes nothing, and one extended later thaws") {
  watchdog w{terms()};
  w.extend(130s);
  CHECK(w.at(120s) == order::run);
  CHECK(w.at(128s) == order::freeze);
  w.extend(160s);
  CHECK(w.at(150s) == order::run);
  CHECK(w.wake() == 158s);
  CHECK(w.at(158s) == order::freeze);
  CHECK(w.wake() == 218s); // it may stand still as long as the first time
}

TEST_CASE("an extension that was overtaken by a later one takes nothing back") {
  watchdog w{terms()};
  w.extend(200s);
  w.extend(150s);
  CHECK(w.at(190s) == order::run);
}

TEST_CASE("what was killed is not brought back by an extension") {
  watchdog w{terms()};
  CHECK(w.at(98s) == order::freeze);
  CHECK(w.at(200s) == order::kill);
  w.extend(300s);
  CHECK(w.at(201s) == order::kill);
}

TEST_CASE("what cannot be frozen is killed instead") {
  auto t = terms();
  t.can_freeze = GENERATE(true, false);
  watchdog w{t};
  w.cannot_freeze();
  CHECK(w.at(98s - 1ms) == order::run);
  CHECK(w.at(98s) == order::kill);
}

TEST_CASE("after the machine slept past everything, a build is frozen first: there is time to ask") {
  watchdog w{terms()};
  CHECK(w.at(50s) == order::run);
  CHECK(w.at(10'000s) == order::freeze);
  CHECK(w.wake() == 10'060s);
  w.extend(10'030s);
  CHECK(w.at(10'001s) == order::run);
}

TEST_CASE("a lease without an end wants no waking") {
  auto t = terms();
  t.deadline = watchdog::never;
  watchdog w{t};
  CHECK(w.at(1'000'000s) == order::run);
  CHECK(w.wake() == watchdog::never);
}
