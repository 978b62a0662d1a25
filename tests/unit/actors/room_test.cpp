#include "actors/build/room.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

#include <fstream>

using namespace coppice;
using namespace coppice::actors;

namespace {

reserve_settings reserve(std::uint64_t memory, std::uint64_t disk, std::uint64_t memory_floor,
                         std::uint64_t disk_floor) {
  reserve_settings r;
  r.memory_bytes = memory;
  r.disk_bytes = disk;
  r.memory_free_min = memory_floor;
  r.disk_free_min = disk_floor;
  return r;
}

} // namespace

TEST_CASE("nothing fits before the machine was measured") {
  room r{reserve(1, 1, 0, 0)};
  CHECK(r.fits(0).builds == 0);
}

TEST_CASE("builds fit by the scarcer of memory and disk, above the floors") {
  room r{reserve(100, 10, 50, 7)};
  r.on_measured({1'000, 350, 1'000});
  CHECK(r.fits(0).builds == 3); // 350 less 50
  r.on_measured({1'000, 1'000, 28});
  CHECK(r.fits(0).builds == 2); // 28 less 7
}

TEST_CASE("a running build keeps its whole reserve") {
  room r{reserve(100, 10, 0, 0)};
  r.on_measured({1'000, 300, 1'000});
  CHECK(r.fits(2).builds == 1);
  CHECK(r.fits(3).builds == 0);
  CHECK(r.fits(30).builds == 0);
}

TEST_CASE("below a floor nothing fits, and what is short is named with its figures and settings") {
  room r{reserve(0, 0, 50, 70)};
  r.on_measured({1'000, 49, 1'000});
  CHECK(r.fits(0).builds == 0);
  CHECK(r.fits(0).short_of.find("49 bytes of memory left") != std::string::npos);
  CHECK(r.fits(0).short_of.find("reserve.memory_free_min") != std::string::npos);
  r.on_measured({1'000, 1'000, 69});
  CHECK(r.fits(0).builds == 0);
  CHECK(r.fits(0).short_of.find("69 bytes of disk left") != std::string::npos);
  CHECK(r.fits(0).short_of.find("reserve.disk_free_min") != std::string::npos);
}

TEST_CASE("without reserves all fit that the floors leave any room for") {
  room r{reserve(0, 0, 50, 70)};
  r.on_measured({1'000, 50, 70});
  CHECK(r.fits(1'000'000).builds > 1'000'000);
}

TEST_CASE("this machine is measured, and a disk that is not there is an error") {
  auto here = measure_room({"/", "/tmp"}, {});
  REQUIRE(here);
  CHECK(here->memory_available_bytes > 0);
  CHECK(here->memory_available_bytes <= here->memory_bytes);
  auto nowhere = measure_room({"/nowhere/at/all"}, {});
  REQUIRE_FALSE(nowhere);
  CHECK(nowhere.error().what.find("/nowhere/at/all") != std::string::npos);
}

TEST_CASE("on a drained machine nothing fits, and the reason is the operator's") {
  room r{reserve(1, 1, 0, 0)};
  r.on_measured({1'000, 1'000, 1'000, "new disks"});
  CHECK(r.fits(0).builds == 0);
  CHECK(r.fits(0).short_of == "is drained: new disks");
  r.on_measured({1'000, 1'000, 1'000, ""});
  CHECK(r.fits(0).builds > 0);
}

TEST_CASE("a machine is drained as long as its mark is there, whoever made it") {
  auto mark = std::filesystem::temp_directory_path() / ("drained-" + std::to_string(::getpid()));
  auto drained = [&] { return measure_room({"/"}, mark).value().drained; };
  CHECK(drained().empty());
  REQUIRE(set_drain_mark(mark, true, "new disks"));
  CHECK(drained() == "new disks");
  std::ofstream{mark}.flush(); // by hand, with touch
  CHECK_FALSE(drained().empty());
  REQUIRE(set_drain_mark(mark, false, ""));
  REQUIRE(set_drain_mark(mark, false, "")); // said twice
  CHECK(drained().empty());
}
