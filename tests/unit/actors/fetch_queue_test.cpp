#include "actors/build/fetch_queue.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;
using lane = fetch_lane;

namespace {

nix::store_path path(const std::string& name) {
  return *nix::store_path::from_base_name("00000000000000000000000000000000-" + name);
}
const auto a = path("a"), b = path("b"), c = path("c"), d = path("d");

} // namespace

TEST_CASE("a path is fetched once at a time, whoever wants it") {
  fetch_queue q;
  CHECK(q.add(a, lane::farm));
  CHECK_FALSE(q.add(a, lane::farm));
  CHECK(q.next() == a);
  CHECK_FALSE(q.add(a, lane::farm));
  CHECK_FALSE(q.next());
  q.on_ended(a);
  CHECK_FALSE(q.contains(a));
  CHECK(q.add(a, lane::farm));
}

TEST_CASE("a lane fetches so many at once, and holds up no other one") {
  fetch_queue q{{{1, 1, 1}}};
  q.add(a, lane::upstream);
  q.add(b, lane::upstream);
  q.add(c, lane::farm);
  CHECK(q.next() == c);
  CHECK(q.next() == a);
  CHECK_FALSE(q.next());
  CHECK(q.waiting(lane::upstream) == 1);
  q.on_ended(a);
  CHECK(q.next() == b);
}

TEST_CASE("what is not wanted yet waits until nothing that is wanted is fetched") {
  fetch_queue q{{{2, 1, 1}}};
  q.add(a, lane::ahead);
  q.add(b, lane::ahead);
  q.add(c, lane::farm);
  CHECK(q.next() == c);
  CHECK_FALSE(q.next());
  q.on_ended(c);
  CHECK(q.next() == a);
  CHECK_FALSE(q.next());
  q.add(d, lane::farm); // does not wait for what is fetched ahead
  CHECK(q.next() == d);
}

TEST_CASE("what waits to be fetched ahead and is wanted now goes the way of what is wanted") {
  fetch_queue q{{{2, 1, 1}}};
  q.add(a, lane::ahead);
  q.add(b, lane::ahead);
  q.add(c, lane::farm);
  CHECK_FALSE(q.add(b, lane::farm));
  CHECK_FALSE(q.add(b, lane::ahead));
  CHECK(q.next() == c);
  CHECK(q.next() == b);
  CHECK(q.running(lane::farm) == 2);
  CHECK(q.drop_ahead() == std::set{a});
  CHECK_FALSE(q.contains(a));
  q.on_ended(a); // nothing
  q.on_ended(b);
  q.on_ended(c);
  CHECK_FALSE(q.next());
  CHECK(q.running(lane::farm) == 0);
}

TEST_CASE("what is fetched ahead already is not dropped") {
  fetch_queue q;
  q.add(a, lane::ahead);
  CHECK(q.next() == a);
  CHECK(q.drop_ahead().empty());
  CHECK(q.running(lane::ahead) == 1);
  q.on_ended(a);
  CHECK(q.running(lane::ahead) == 0);
}
