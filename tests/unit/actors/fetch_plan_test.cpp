#include "actors/build/fetch_plan.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

nix::store_path path(const std::string& name) {
  return *nix::store_path::from_base_name("00000000000000000000000000000000-" + name);
}
ledger::path_holder held_by(const std::string& name, const std::string& node) {
  return {path(name), {node}, "http://" + node};
}

const holder_health::time_point start{1h};
const node_id oak{"oak"}, elm{"elm"};

} // namespace

TEST_CASE("the machine that built an input is asked for it, unless it is this one or the store is here") {
  fetch_plan plan{{elm}};
  plan.on_holders({held_by("a", "oak"), held_by("b", "elm"), held_by("a", "oak")});
  CHECK(plan.holders_of(path("a"), start) == std::vector{held_by("a", "oak")});
  CHECK(plan.holders_of(path("b"), start).empty());
  CHECK(plan.holders_of(path("c"), start).empty());
  plan.forget(path("a"));
  CHECK(plan.holders_of(path("a"), start).empty());

  fetch_plan hub{{elm, true}};
  hub.on_holders({held_by("a", "oak")});
  CHECK(hub.holders_of(path("a"), start).empty());
}

TEST_CASE("a machine that sent wrong bytes is barred at once, whatever else it sends, until its time is over") {
  fetch_plan plan{{elm}};
  plan.on_holders({held_by("a", "oak")});
  plan.health().on_wrong(oak, start);
  plan.health().on_served(oak); // from a fetch that began before
  CHECK(plan.holders_of(path("a"), start + 1h - 1s).empty());
  CHECK(plan.holders_of(path("a"), start + 1h).size() == 1);
}

TEST_CASE("a machine that cannot be reached is left alone, longer each time, until it serves again") {
  holder_health health;
  auto now = start;
  for (auto pause : {10s, 20s, 40s, 80s, 160s, 300s, 300s}) {
    REQUIRE(health.may_ask(oak, now));
    health.on_failed(oak, now);
    health.on_failed(oak, now); // another fetch at the same time
    CHECK_FALSE(health.may_ask(oak, now + pause - 1s));
    now += pause;
  }
  CHECK(health.may_ask(elm, now));
  health.on_served(oak);
  health.on_failed(oak, now);
  CHECK(health.may_ask(oak, now + 10s));
}

TEST_CASE("so many machines are remembered, those that are barred longest") {
  holder_health health{{10s, 300s, 1h, 3}};
  health.on_wrong(oak, start);
  for (auto n : {"a", "b", "c", "d"})
    health.on_failed({n}, start);
  CHECK(health.remembered() == 3);
  CHECK_FALSE(health.may_ask(oak, start));
}
