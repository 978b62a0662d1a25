#include "tests/support/whole_node.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using test::whole_node;
using instant = test::world::instant;

namespace {

request_id numbered(std::uint8_t n) {
  request_id id;
  id.bytes[0] = n;
  return id;
}

/// The GRAPHs of these requests die each time that they have read the closure: the first before it does anything with
/// it, the second when it has asked for its locks.
struct poisoned_node : whole_node {
  const request_id before = numbered(1), after = numbered(2), good = numbered(3);
  int deaths = 0;

  explicit poisoned_node(std::uint64_t seed) : whole_node(seed) {
    w.kills = [this](const std::string& path, const std::string& message, instant at) {
      const auto& dies = at == instant::before ? before : after;
      const bool dead = message == "done" && path.starts_with("/oak/coord/graphs/" + dies.to_string().substr(0, 12));
      deaths += dead;
      return dead;
    };
    start();
  }
};

} // namespace

TEST_CASE("requests of which their GRAPH dies fail by name, and neither its supervisor nor another request notices") {
  const auto base = test::seed_or(1);
  for (auto seed = base; seed < base + 5; ++seed) {
    INFO("COPPICE_SEED=" << seed << " test_actor 'requests of which*'");
    poisoned_node node{seed};
    node.submit(node.before, {"top"});
    node.submit(node.after, {"top"});
    node.submit(node.good, {"top"});
    CHECK(node.follow(node.good).state == request_state::succeeded);
    for (auto& id : {node.before, node.after}) {
      const auto result = node.follow(id);
      CHECK(result.state == request_state::failed);
      REQUIRE(result.roots.size() == 1);
      CHECK(result.roots[0].failure == failure::poisoned);
      CHECK(result.reason.starts_with("its coordinator died more than 8 times within a minute, at last "
                                      "/oak/coord/graphs/" +
                                      id.to_string().substr(0, 12) + "-1: "));
    }
    CHECK(node.deaths == 18);
    for (auto path : {"/oak/coord", "/oak/coord/graphs", "/oak/coord/graph-keeper"})
      CHECK(node.w.status(path).restarts == 0);
    CHECK(node.left_behind() == "");
  }
}
