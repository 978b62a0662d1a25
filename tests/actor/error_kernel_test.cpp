#include "tests/support/whole_node.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace std::chrono_literals;
using test::whole_node;

// The 20th round of integration/kills' long run: 30 s after each death, and clients gave up.
TEST_CASE("a ledger that dies as often as can be borne, minute after minute, is back in a small part of a lease each time") {
  whole_node node{1};
  node.start();
  const std::string path = "/oak/lock/ledger";
  for (int death = 1; death <= 20; ++death) {
    const auto killed = node.w.now();
    node.kill({path, true, {}});
    while (node.state_of(path) != actor_state::up && node.w.now() - killed < 1min)
      node.w.advance(100ms);
    INFO("death " << death);
    CHECK(node.w.now() - killed < 4s);
    node.w.advance(13s);
  }
}
