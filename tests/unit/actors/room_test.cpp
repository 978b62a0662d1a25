#include "actors/build/room.hpp"

#include <catch2/catch.hpp>
#include <unistd.h>

#include <fstream>
#include <memory>

using namespace coppice;
using namespace coppice::actors;

namespace {

/// A machine of which each build reserves so much, and which keeps so much for itself; cores and builds by their
/// number.
struct counted_room {
  machine_share share;
  std::unique_ptr<room> all;
  counted_room(std::uint64_t memory, std::uint64_t disk, std::uint64_t memory_floor, std::uint64_t disk_floor,
               const pressure_settings& pressure = {})
      : share{{100, unmeasured, unmeasured}, {}, {0, memory, disk}}
      , all(std::make_unique<room>(share, floors(memory_floor, disk_floor), pressure)) {}
  static reserve_settings floors(std::uint64_t memory, std::uint64_t disk) {
    reserve_settings r;
    r.memory_free_min = memory;
    r.disk_free_min = disk;
    return r;
  }
  void on_measured(const machine_room& now) { all->on_measured(now); }
  room::fit fits(std::uint32_t running) const {
    capacity reserved;
    for (std::uint32_t i = 0; i < running; ++i)
      reserved = reserved + share.each;
    return all->fits(reserved, share.each);
  }
};

} // namespace

TEST_CASE("nothing fits before the machine was measured") {
  counted_room r{1, 1, 0, 0};
  CHECK(r.fits(0).builds == 0);
}

TEST_CASE("builds fit by the scarcer of memory and disk, above the floors") {
  counted_room r{100, 10, 50, 7};
  r.on_measured({1'000, 350, 1'000});
  CHECK(r.fits(0).builds == 3); // 350 less 50
  r.on_measured({1'000, 1'000, 28});
  CHECK(r.fits(0).builds == 2); // 28 less 7
}

TEST_CASE("a running build keeps its whole reserve") {
  counted_room r{100, 10, 0, 0};
  r.on_measured({1'000, 300, 1'000});
  CHECK(r.fits(2).builds == 1);
  CHECK(r.fits(3).builds == 0);
  CHECK(r.fits(30).builds == 0);
}

TEST_CASE("below a floor nothing fits, and what is short is named with its figures and settings") {
  counted_room r{0, 0, 50, 70};
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
  counted_room r{0, 0, 50, 70};
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
  counted_room r{1, 1, 0, 0};
  r.on_measured({1'000, 1'000, 1'000, "new disks"});
  CHECK(r.fits(0).builds == 0);
  CHECK(r.fits(0).short_of == "is drained: new disks");
  r.on_measured({1'000, 1'000, 1'000, ""});
  CHECK(r.fits(0).builds > 0);
}

TEST_CASE("a pressure that reaches its setting closes the door, which opens again well below it") {
  pressure_settings limits{0, 40, 0, 0};
  counted_room r{1, 1, 0, 0, limits};
  const auto open_at = [&](std::uint32_t memory) {
    r.on_measured({1'000, 1'000, 1'000, "", {99, memory, 99, 999}}); // what has no setting does not count
    return r.fits(0).builds > 0;
  };
  CHECK(open_at(39));
  CHECK_FALSE(open_at(40));
  CHECK(r.fits(0).short_of.find("40% of the time nothing gets on for want of memory (limits.pressure.memory = 40)") !=
        std::string::npos);
  CHECK_FALSE(open_at(39));
  CHECK_FALSE(open_at(30));
  CHECK(open_at(29));
  CHECK(open_at(39));
}

TEST_CASE("each kind of pressure has a setting of its own, and a reason") {
  const pressure_settings limits{50, 50, 50, 50};
  const std::pair<machine_pressure, const char*> all[] = {
      {{50, 0, 0, 0}, "pressure.cpu"}, {{0, 50, 0, 0}, "pressure.memory"}, {{0, 0, 50, 0}, "pressure.io"}, {{0, 0, 0, 50}, "pressure.load"}};
  for (auto& [now, setting] : all) {
    pressure_door door{limits};
    door.on_measured(now);
    CHECK(door.shut().find(setting) != std::string::npos);
  }
}

TEST_CASE("pressure is what the kernel says, and the load for each CPU where it says nothing") {
  const auto proc = std::filesystem::temp_directory_path() / ("proc-" + std::to_string(::getpid()));
  std::filesystem::create_directories(proc / "pressure");
  std::ofstream{proc / "loadavg"} << "1000000000000.5 1 1 2/3 4\n";
  CHECK(measure_pressure(proc).load == 1'000'000);
  std::ofstream{proc / "pressure/cpu"} << "some avg10=12.75 avg60=1.00 avg300=1.00 total=5\nfull avg10=0.00 avg60=0.00\n";
  std::ofstream{proc / "pressure/memory"} << "some avg10=99.00 avg60=1.00\nfull avg10=33.99 avg60=1.00 avg300=1.00 total=5\n";
  std::ofstream{proc / "pressure/io"} << "garbage\n";
  const auto p = measure_pressure(proc);
  CHECK((p.cpu == 12 && p.memory == 33 && p.io == 0 && p.load == 0));
  std::filesystem::remove_all(proc);
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
