#include "actors/care/observatory.hpp"
#include "actors/events.hpp"
#include "tests/support/world.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

farm_event event(std::string text) {
  farm_event e;
  e.kind = event_kind::reconciled;
  e.text = std::move(text);
  return e;
}

follow_events after(std::uint64_t seq, std::uint64_t stream = 0, std::uint32_t wait_ms = 0) {
  follow_events q;
  q.after = seq;
  q.stream = stream;
  q.wait_ms = wait_ms;
  return q;
}

/// Nobody is asked.
class no_ledger {
public:
  using interface = ledger_actor;
  static constexpr const char* name = "ledger";
  explicit no_ledger(rt::self<interface>*) {}
  interface::behavior_type make_behavior() {
    return {[](atom::transact_atom, ledger::transaction&) -> caf::result<ledger::answer> {
              return make_error(ec::unavailable, "there is none");
            },
            [](atom::done_atom) {}, [](atom::tick_atom) {}};
  }
};

/// An OBSERVATORY whose log the test writes.
struct served_log {
  test::world w;
  rt::tree tree;
  event_port events;
  observatory_actor observatory;
  test::world::root root;

  served_log() : tree(w.directory, "/t"), events(std::make_shared<event_log>(w.clock, node_id{"oak"}, 7, 100)) {
    auto none = tree.child<no_ledger>("ledger");
    observatory = tree.child<observatory_state>(
        "observatory", observatory_state::config{{"oak"}, &w.directory, 10, events, &w.clock}, none);
    root = w.run(tree);
    w.settle();
  }
  auto ask(const follow_events& q) { return w.begin(observatory, atom::events_v, caller{"x", role::observer}, q); }
};

} // namespace

TEST_CASE("whoever asks again with the number it was given hears every event once, and of each one lost") {
  const auto seed = test::seed_or(std::random_device{}());
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  rt::manual_clock clock;
  for (int round = 0; round < 50; ++round) {
    const auto kept = 1 + random() % 20;
    event_log log{clock, {"oak"}, 7, kept};
    std::uint64_t told = 0, heard = 0;
    for (int step = 0; step < 100; ++step) {
      if (random() % 3 > 0) {
        std::vector<farm_event> some;
        for (auto n = random() % 10; n > 0; --n)
          some.push_back(event(std::to_string(++told)));
        log.add(std::move(some));
        continue;
      }
      auto q = after(heard, heard == 0 ? 0 : 7);
      q.limit = static_cast<std::uint32_t>(1 + random() % 8);
      CHECK(log.has_news(q) == (heard < told));
      auto page = log.read(q);
      const auto there = std::min<std::uint64_t>(told - heard, kept);
      REQUIRE(page.lost == told - heard - there);
      REQUIRE(page.events.size() == std::min<std::uint64_t>(q.limit, there));
      heard += page.lost;
      for (auto& e : page.events) {
        REQUIRE(e.seq == ++heard);
        REQUIRE(e.text == std::to_string(heard));
      }
      REQUIRE(page.next == heard);
    }
  }
}

TEST_CASE("a number of another numbering, or one that is still to come, does not hide what there is") {
  rt::manual_clock clock;
  event_log log{clock, {"oak"}, 7, 10};
  log.add({event("a"), event("b")});
  auto anew = log.read(after(1'000, 6));
  CHECK(anew.stream == 7);
  CHECK(anew.events.size() == 2);
  auto beyond = log.read(after(1'000));
  CHECK(beyond.events.empty());
  CHECK(beyond.next == 2);
  CHECK(log.read(after(events_from_now)).next == 2);
}

TEST_CASE("a long text is cut, so that the events kept take a bounded room") {
  rt::manual_clock clock;
  event_log log{clock, {"oak"}, 7, 10};
  log.add(event(std::string(10'000, 'x')));
  CHECK(log.read(after(0)).events.at(0).text.size() == event_text_bytes_max);
}

TEST_CASE("a follower is answered soon after something happens, and empty-handed when its time is over") {
  served_log s;
  s.events.add(event("first"));
  auto now = s.ask(after(0, 7, 5'000));
  s.w.settle();
  REQUIRE(now.answered());
  CHECK(now.get()->events.at(0).text == "first");

  auto waits = s.ask(after(1, 7, 5'000));
  auto from_now = s.ask(after(events_from_now, 0, 5'000));
  s.w.advance(1s);
  REQUIRE(!waits.answered());
  s.events.add(event("second"));
  s.events.add(event("third"));
  s.w.advance(1s);
  for (auto* q : {&waits, &from_now}) {
    REQUIRE(q->answered());
    REQUIRE(q->get()->events.size() == 2);
    CHECK(q->get()->events[1].text == "third");
  }
  auto in_vain = s.ask(after(3, 7, 5'000));
  s.w.advance(4s);
  CHECK(!in_vain.answered());
  s.w.advance(2s);
  REQUIRE(in_vain.answered());
  CHECK(in_vain.get()->next == 3);
}

TEST_CASE("an OBSERVATORY that dies loses no event, and its followers hear at once that they have to ask again") {
  served_log s;
  auto waits = s.ask(after(0, 7, 5'000));
  s.w.settle();
  s.w.directory.kill("/t/observatory");
  s.events.add(event("while it was away"));
  s.w.advance(1s);
  REQUIRE(waits.answered());
  CHECK(waits.code() == ec::restarted);
  auto again = s.ask(after(0, 7, 5'000));
  s.w.advance(1s);
  REQUIRE(again.answered());
  CHECK(again.get()->events.at(0).text == "while it was away");
}

TEST_CASE("followers beyond the bound are told so, and those before it are not forgotten") {
  served_log s;
  auto first = s.ask(after(0, 7, 5'000));
  for (std::size_t i = 1; i < event_followers_max; ++i)
    s.ask(after(0, 7, 5'000));
  auto refused = s.ask(after(0, 7, 5'000));
  s.w.settle();
  REQUIRE(refused.answered());
  CHECK(refused.code() == ec::overloaded);
  CHECK(!first.answered());
  s.events.add(event("x"));
  s.w.advance(1s);
  REQUIRE(first.answered());
  CHECK(first.get()->events.size() == 1);
}
