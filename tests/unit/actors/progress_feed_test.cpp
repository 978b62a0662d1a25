#include "actors/plan/progress_feed.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

inhash key_of(std::uint8_t n) {
  inhash k;
  k.bytes[0] = n;
  return k;
}

step_event event_of(std::uint8_t n, step_state state) {
  step_event e;
  e.key = key_of(n);
  e.state = state;
  return e;
}

/// A feed with a clock.
struct teller {
  progress_feed feed{7};
  progress_feed::time_point now{1h};
  const step_event& tell(std::uint8_t n, step_state state) { return feed.tell(event_of(n, state), now); }
};

} // namespace

TEST_CASE("a build runs from when it is told to be built until it is told to be over, and then has a duration") {
  teller t;
  t.tell(1, step_state::building);
  t.now += 2s;
  t.feed.on_progress({key_of(1), {}, {}, {}, "configurePhase", "checking for gcc", false});
  t.feed.on_progress({key_of(2), {}, {}, {}, "of another", "", false});
  auto a = t.feed.since(0, t.now);
  REQUIRE(a.running.size() == 1);
  CHECK(a.running[0].elapsed_ms == 2000);
  CHECK(a.running[0].phase == "configurePhase");
  CHECK(t.feed.running(key_of(1), t.now)->last_line == "checking for gcc");
  CHECK_FALSE(t.feed.running(key_of(2), t.now));
  t.tell(1, step_state::partial); // built, and not yet in the store: one build
  t.now += 1s;
  CHECK(t.tell(1, step_state::built).duration_ms == 3000);
  CHECK(t.feed.since(0, t.now).running.empty());
  CHECK(t.tell(1, step_state::built).duration_ms == 0); // what was reused took no time
}

TEST_CASE("events are told once, in order, in bounded answers, and those that are no longer kept are missed") {
  teller t;
  for (std::size_t i = 0; i < events_kept_max + 10; ++i)
    t.tell(1, step_state::queued);
  auto first = t.feed.since(0, t.now);
  CHECK(first.stream == 7);
  CHECK(first.lost);
  CHECK(first.events.size() == events_per_poll_max);
  CHECK(first.events.front().seq == 11);
  CHECK(t.feed.has_news(first.next));
  auto next = t.feed.since(first.next, t.now);
  CHECK_FALSE(next.lost);
  CHECK(next.events.front().seq == first.next + 1);
  const auto last = events_kept_max + 10;
  CHECK_FALSE(t.feed.has_news(last));
  CHECK(t.feed.since(last, t.now).events.empty());
  CHECK(t.feed.since(last, t.now).next == last);
  CHECK(t.feed.since(last + 1, t.now).lost); // a number of another stream
}
