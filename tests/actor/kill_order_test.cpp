#include "tests/support/whole_node.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using test::whole_node;

TEST_CASE("an order to kill that is said again, because its answer was lost, ends nobody else") {
  whole_node node{1};
  node.start();
  for (std::string path : {"/oak/coord/allocator", "/oak/observatory"}) {
    CHECK(node.kill({path, false, 0}) == 1);
    CHECK(node.kill({path, false, 0}) == 1); // the same order once more
    CHECK(node.kill({path, true, 1}) == 2);
    CHECK(node.kill({path, true, {}}) == 3); // whoever serves
  }
}
