#include "tests/unit/apps/steps.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::app;
using namespace coppice::app::steps;
using namespace std::chrono_literals;

TEST_CASE("piped output has one plain line for each step that starts or ends") {
  display d({});
  request_progress p;
  p.events = {event("zlib.o", step_state::building), event("zlib.o", step_state::built, 1200),
              event("old", step_state::reused)};
  p.events[0].node = {"oak"};
  CHECK(d.take(p, start) == lines{"building zlib.o on oak", "built zlib.o (1.2 s)"});
  CHECK(d.block(start, {}).empty());
}

TEST_CASE("a failure tells its reason, also when quiet") {
  display d({.quiet = true});
  request_progress p;
  p.events = {event("good", step_state::built, 10), event("bad", step_state::failed, 2500, "exit code 1")};
  CHECK(d.take(p, start) == lines{"failed bad: exit code 1 (2.5 s)"});
}

TEST_CASE("events that come again after a takeover tell nothing twice") {
  display d({});
  request_progress p;
  p.stream = 1;
  p.events = {event("zlib.o", step_state::built, 1200)};
  REQUIRE(d.take(p, start).size() == 1);
  p.stream = 2;
  CHECK(d.take(p, start).empty());
}

TEST_CASE("the block shows running builds and counts, and its clocks go on between polls") {
  display d({.live = true});
  request_progress p;
  p.running = {running("zlib.o", 3000, "gcc -c \x1b[1mzlib.c"), running("bzip2.o", 59'500)};
  p.counts.total = 131;
  p.counts.built = 12;
  p.counts.building = 2;
  p.counts.queued = 40;
  p.counts.reused = 3;
  CHECK(d.take(p, start).empty());
  CHECK(d.block(start + 1s, {80, 24}) == lines{"▸ bzip2.o · 1 m 00 s · buildPhase · oak",
                                               "▸ zlib.o · 4 s · buildPhase · oak · gcc -c zlib.c",
                                               "[12/131 built · 2 running · 40 queued · 3 reused · 1.0 s]"});
}

TEST_CASE("the block fits any terminal") {
  display d({.live = true});
  request_progress p;
  for (int i = 0; i < 50; ++i)
    p.running.push_back(running("a-rather-long-name-" + std::to_string(i), i * 1000, "構築中 and more"));
  p.counts.total = 50;
  d.take(p, start);
  for (std::size_t height = 0; height < 40; ++height)
    for (std::size_t width = 0; width < 100; width += 3) {
      const auto block = d.block(start, {width, height});
      CHECK(block.size() < std::max<std::size_t>(height, 1));
      for (const auto& line : block)
        CHECK(columns(line) < width);
    }
  const auto block = d.block(start, {80, 6});
  REQUIRE(block.size() == 5);
  CHECK(block[3] == "  … and 47 more");
}

TEST_CASE("a node that is away is named with the time it has been missed") {
  display live({.live = true}), plain({});
  CHECK(live.away("tcp://oak:5000", start).empty());
  live.away("tcp://oak:5000", start + 12s);
  CHECK(live.block(start + 12s, {80, 24}) == lines{"waiting for tcp://oak:5000 (12 s)"});
  CHECK(plain.away("tcp://oak:5000", start) == lines{"waiting for tcp://oak:5000"});
  CHECK(plain.away("tcp://oak:5000", start + 1s).empty());
  CHECK(plain.take({}, start + 2s) == lines{"tcp://oak:5000 answers again"});
}

TEST_CASE("why a step waits is told once") {
  display d({});
  request_progress p;
  p.events = {event("x", step_state::queued, 0, "no machine has the system riscv64-linux")};
  CHECK(d.take(p, start) == lines{"waiting x: no machine has the system riscv64-linux"});
  CHECK(d.take(p, start).empty());
}

TEST_CASE("redrawing goes up by the rows that the block takes, also after the terminal became narrower") {
  live_block block;
  CHECK(block.draw({}, {"0123456789", "[1/2]"}, {20, 10}) == "0123456789\n[1/2]");
  CHECK(block.draw({"built x"}, {"ab"}, {20, 10}) == "\x1b[1A\r\x1b[Jbuilt x\nab");
  CHECK(block.draw({}, {"0123456789", "[1/2]"}, {20, 10}) == "\r\x1b[J0123456789\n[1/2]");
  CHECK(block.draw({}, {}, {4, 10}) == "\x1b[4A\r\x1b[J"); // rows of 4, 4 and 2, then 4 and 1
  CHECK(block.draw({"end"}, {}, {4, 10}) == "end\n");
}
