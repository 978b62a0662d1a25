#include "actors/capacity.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;

namespace {

node_settings settings(std::uint32_t cores, std::uint32_t of_machine = 0) {
  node_settings s;
  s.cores = cores;
  s.machine.cores = of_machine;
  s.limits.reserve.memory_bytes = 100;
  s.limits.reserve.disk_bytes = 10;
  return s;
}

} // namespace

TEST_CASE("an ordinary build reserves the cores that the settings say, or an even share") {
  CHECK(share_of(settings(1), 4, 4).each == capacity{1, 100, 10});
  CHECK(share_of(settings(3), 4, 16).each.cores == 3);
  CHECK(share_of(settings(0), 4, 16).each.cores == 4);
  CHECK(share_of(settings(0), 16, 4).each.cores == 1);
  CHECK(share_of(settings(0, 9), 4, 16).each.cores == 2);
  CHECK(share_of(settings(30, 8), 4, 16).each.cores == 8); // never more than there are, or none could start
}

TEST_CASE("max_jobs builds fit, however few CPUs there are, unless the machine's cores are said") {
  const auto many = share_of(settings(1), 16, 2);
  CHECK(times(many.left, many.each) == 16);
  const auto said = share_of(settings(1, 2), 16, 2);
  CHECK(times(said.left, said.each) == 2);
}

TEST_CASE("what requires big-parallel reserves all cores, and what the settings say of a feature is the least") {
  auto s = settings(2);
  s.machine.reserve.push_back({"big-memory", false, 0, 4'000, 0});
  s.machine.reserve.push_back({"wide", false, 5, 0, 70});
  const auto m = share_of(s, 4, 8);
  CHECK(reserved_by(m, {}, false) == capacity{2, 100, 10});
  CHECK(reserved_by(m, {"kvm"}, false) == capacity{2, 100, 10});
  CHECK(reserved_by(m, {"big-parallel"}, false) == capacity{8, 100, 10});
  CHECK(reserved_by(m, {"big-memory"}, false) == capacity{2, 4'000, 10});
  CHECK(reserved_by(m, {"wide", "big-memory"}, false) == capacity{5, 4'000, 70});
}

TEST_CASE("what waits for network or disk reserves no core") {
  CHECK(reserved_by(share_of(settings(2), 4, 8), {"big-parallel"}, true) == capacity{0, 100, 10});
}

TEST_CASE("of a machine that does not say how it shares itself out nothing is reserved") {
  CHECK(reserved_by(machine_share{}, {"big-parallel"}, false) == capacity{});
  CHECK(too_little({}, {}, {}).empty());
}

TEST_CASE("what there is too little of is named with its figures") {
  const capacity all{4, 8 << 20, 8 << 20};
  CHECK(too_little({4, 8 << 20, 8 << 20}, all, all).empty());
  CHECK(too_little({1, 0, 0}, all, {2, 1, 0}) == "has 1 of 4 cores left, and this build takes 2");
  CHECK(too_little({4, 3 << 20, 0}, all, {2, 5 << 20, 0}) == "has 3 MiB of memory left, and this build takes 5");
  CHECK(too_little({4, 8 << 20, 1 << 20}, all, {2, 0, 2 << 20}) == "has 1 MiB of disk left, and this build takes 2");
}

TEST_CASE("what remains is never less than nothing") {
  CHECK(capacity{1, 2, 3} - capacity{2, 1, 9} == capacity{0, 1, 0});
  CHECK(capacity{1, 2, 3} + capacity{2, 1, 9} == capacity{3, 3, 12});
}
