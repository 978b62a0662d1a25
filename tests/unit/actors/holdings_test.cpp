#include "actors/place/holdings.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using actors::holdings;

namespace {

heavy_input input(const std::string& name, std::uint64_t mib, const std::string& node = {}) {
  return {*nix::store_path::from_base_name("00000000000000000000000000000000-" + name), mib << 20, {node}};
}
const node_id oak{"oak"}, elm{"elm"};

} // namespace

TEST_CASE("what a machine has built, or was given a job for, need not be moved to it") {
  holdings h;
  const std::vector inputs{input("a", 100, "oak"), input("b", 10)};
  CHECK(h.missing_bytes(oak, inputs) == 10u << 20);
  CHECK(h.missing_bytes(elm, inputs) == 110u << 20);
  h.on_given(elm, inputs);
  CHECK(h.missing_bytes(elm, inputs) == 0);
  CHECK(h.missing_bytes(oak, inputs) == 10u << 20);
}

TEST_CASE("bytes to be moved are counted in steps of 32 MiB") {
  holdings h;
  CHECK(h.missing_steps(elm, {input("a", 15)}) == 0);
  CHECK(h.missing_steps(elm, {input("a", 16)}) == 1);
  CHECK(h.missing_steps(elm, {input("a", 15), input("b", 15), input("c", 15)}) == 1);
  CHECK(h.missing_steps(elm, {input("a", 320)}) == 10);
}

TEST_CASE("holders of so many inputs are remembered, then the earliest is forgotten") {
  holdings h{2};
  h.on_given(elm, {input("a", 1), input("b", 1)});
  h.on_given(oak, {input("a", 1)});
  h.on_given(elm, {input("c", 1)});
  CHECK(h.remembered() == 2);
  CHECK(h.missing_bytes(elm, {input("a", 1)}) > 0);
  CHECK(h.missing_bytes(elm, {input("b", 1), input("c", 1)}) == 0);
}
