#include "tests/unit/apps/steps.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <sstream>

using namespace coppice;
using namespace coppice::app;
using namespace coppice::app::steps;
using namespace std::chrono_literals;

namespace {

/// "all <- a b; a <- c": what is named first is the root.
step_graph graph(const std::string& text) {
  step_graph g;
  std::map<std::string, std::uint32_t> index;
  const auto node = [&](const std::string& name) {
    const auto [at, added] = index.try_emplace(name, static_cast<std::uint32_t>(g.nodes.size()));
    if (added) g.nodes.push_back({drv(name), {}});
    return at->second;
  };
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line, ';');) {
    std::istringstream words(line);
    std::string name, input;
    words >> name;
    const auto at = node(name);
    words >> input; // "<-"
    while (words >> input) {
      const auto to = node(input);
      g.nodes[at].inputs.push_back(to);
    }
  }
  g.roots = {0};
  return g;
}

/// A display that knows a graph, and its screens.
struct screen {
  explicit screen(const std::string& text) : d({.live = true}) { d.know(graph(text)); }

  screen& news(const std::vector<step_event>& events, const std::vector<running_step>& now_running) {
    request_progress p;
    p.events = events;
    p.running = now_running;
    p.counts.total = 9;
    p.counts.building = now_running.size();
    d.take(p, start);
    return *this;
  }
  lines at(std::size_t width, std::size_t height) { return d.block(start, {width, height}); }

  display d;
};

const std::string library = "all <- zlib bzip2 docs; zlib <- adler.o crc.o; bzip2 <- block.o; docs <- zlib";

} // namespace

TEST_CASE("what runs stands below the step that waits for it, and that below the root") {
  screen s(library);
  s.news({}, {running("adler.o", 9000), running("crc.o", 4000), running("block.o", 2000)});
  CHECK(s.at(60, 24) == lines{
                            "◦ all · waits for 3",
                            "├─ ◦ zlib · waits for 2",
                            "│  ├─ ▸ adler.o · 9 s · buildPhase · oak",
                            "│  └─ ▸ crc.o · 4 s · buildPhase · oak",
                            "└─ ◦ bzip2 · waits for 1",
                            "   └─ ▸ block.o · 2 s · buildPhase · oak",
                            "[0/9 built · 3 running]",
                        });
}

TEST_CASE("a step that is over leaves the forest, and what waits for less says so") {
  screen s(library);
  s.news({}, {running("adler.o", 9000), running("crc.o", 4000)});
  s.news({event("adler.o", step_state::built, 9000)}, {running("crc.o", 5000)});
  CHECK(s.at(60, 24) == lines{
                            "◦ all · waits for 3",
                            "└─ ◦ zlib · waits for 1",
                            "   └─ ▸ crc.o · 5 s · buildPhase · oak",
                            "[0/9 built · 1 running]",
                        });
  s.news({event("crc.o", step_state::built)}, {running("zlib", 0)});
  CHECK(s.at(60, 24)[1] == "└─ ◦ docs · waits for 1");
  CHECK(s.at(60, 24)[2] == "   └─ ▸ zlib · 0 s · buildPhase · oak");
  s.news({event("zlib", step_state::built), event("docs", step_state::built), event("bzip2", step_state::built)},
         {running("all", 1000)});
  CHECK(s.at(60, 24)[0] == "▸ all · 1 s · buildPhase · oak");
}

TEST_CASE("steps left out between the root and what is shown make a dotted branch") {
  screen s("all <- a; a <- b; b <- c; c <- leaf");
  s.news({}, {running("leaf", 0)});
  CHECK(s.at(60, 24) == lines{
                            "◦ all · waits for 1",
                            "└┄ ◦ c · waits for 1",
                            "   └─ ▸ leaf · 0 s · buildPhase · oak",
                            "[0/9 built · 1 running]",
                        });
}

TEST_CASE("of the steps that wait for one, the one that can start soonest is shown") {
  screen s("all <- big small; big <- leaf other third; small <- leaf");
  s.news({}, {running("leaf", 0)});
  CHECK(s.at(60, 24)[1] == "└─ ◦ small · waits for 1");
}

TEST_CASE("what was there already hides what it would have needed") {
  screen s("all <- old new; old <- leaf; new <- x leaf");
  s.news({event("old", step_state::reused)}, {running("leaf", 0)});
  CHECK(s.at(60, 24)[0] == "◦ all · waits for 1");
  CHECK(s.at(60, 24)[1] == "└─ ◦ new · waits for 2");
}

TEST_CASE("failed steps stay in the forest while others go on") {
  screen s(library);
  s.news({event("adler.o", step_state::failed), event("zlib", step_state::not_attempted),
          event("docs", step_state::not_attempted), event("all", step_state::not_attempted)},
         {running("block.o", 2000)});
  CHECK(s.at(60, 24) == lines{
                            "◦ all · not attempted",
                            "├─ ◦ bzip2 · waits for 1",
                            "│  └─ ▸ block.o · 2 s · buildPhase · oak",
                            "└┄ ✗ adler.o · failed",
                            "[0/9 built · 1 running]",
                        });
}

TEST_CASE("with little room the waiting steps go first, then the roots, then what runs") {
  screen s(library);
  s.news({}, {running("adler.o", 9000), running("crc.o", 4000), running("block.o", 2000)});
  CHECK(s.at(60, 7) == lines{
                           "◦ all · waits for 3",
                           "├┄ ▸ adler.o · 9 s · buildPhase · oak",
                           "├┄ ▸ crc.o · 4 s · buildPhase · oak",
                           "└┄ ▸ block.o · 2 s · buildPhase · oak",
                           "[0/9 built · 3 running]",
                       });
  CHECK(s.at(60, 5) == lines{
                           "▸ adler.o · 9 s · buildPhase · oak",
                           "▸ crc.o · 4 s · buildPhase · oak",
                           "▸ block.o · 2 s · buildPhase · oak",
                           "[0/9 built · 3 running]",
                       });
  CHECK(s.at(60, 4) == lines{
                           "▸ adler.o · 9 s · buildPhase · oak",
                           "  … and 2 more",
                           "[0/9 built · 3 running]",
                       });
  CHECK(s.at(60, 2) == lines{"[0/9 built · 3 running]"});
}

TEST_CASE("on twenty columns the names, the times and what is left are seen") {
  screen s("all <- one; one <- a-long-name-of-a-step");
  s.news({}, {running("a-long-name-of-a-step", 65'000)});
  s.d.learn({"a-long-name-of-a-step", "one", "all"}, {120'000, 1000, 1000});
  CHECK(s.at(20, 24) == lines{
                            "◦ all · waits for 1",
                            "└┄ ▸ a-long-name-o…",
                            "[0/9 built]",
                        });
  CHECK(s.at(40, 24)[1] == "└┄ ▸ a-long-name-of… · 1 m 05 s of ~2 m");
  CHECK(s.at(30, 24) == lines{
                            "◦ all · waits for 1",
                            "└┄ ▸ a-long-name-… · 1 m 05 s",
                            "[0/9 built · ~60 s left]",
                        });
}

TEST_CASE("every screen of a forest fits its terminal") {
  std::string text = "all <- group0";
  for (int i = 1; i < 12; ++i) text += " group" + std::to_string(i);
  std::vector<running_step> all_running;
  for (int i = 0; i < 12; ++i) {
    text += "; group" + std::to_string(i) + " <-";
    for (int k = 0; k < 4; ++k) {
      const auto name = "a-rather-long-name-" + std::to_string(4 * i + k);
      text += " " + name;
      all_running.push_back(running(name, 1000 * k));
      all_running.back().last_line = "構築中 e\u0301 and more";
    }
  }
  screen s(text);
  s.news({event("a-rather-long-name-3", step_state::failed), event("group0", step_state::not_attempted)}, all_running);
  for (std::size_t height = 0; height < 70; ++height)
    for (std::size_t width = 0; width < 100; width += 3) {
      const auto block = s.at(width, height);
      CHECK(block.size() < std::max<std::size_t>(height, 1));
      for (const auto& line : block)
        CHECK(columns(line) < width);
    }
}

TEST_CASE("names are asked for once: first of what runs, then of what must still be built") {
  screen s("all-1.0 <- lib-2.0 old-1.0; lib-2.0 <- x-1; old-1.0 <- y-1");
  s.news({event("old-1.0", step_state::reused)}, {running("x-1", 0)});
  CHECK(s.d.names_to_ask(1) == lines{"x"});
  auto more = s.d.names_to_ask(10);
  std::sort(more.begin(), more.end());
  CHECK(more == lines{"all", "lib"});
  CHECK(s.d.names_to_ask(10).empty());
}

TEST_CASE("what a build usually takes is told beside what it took so far") {
  display d({.live = true}); // also without a graph
  request_progress p;
  p.running = {running("zlib-1.3", 4000), running("new-1", 2000)};
  d.take(p, start);
  CHECK(d.names_to_ask(10) == lines{"zlib", "new"});
  d.learn({"zlib", "new"}, {12'300, 0});
  CHECK(d.block(start, {60, 24}) ==
        lines{"▸ zlib-1.3 · 4 s of ~15 s · buildPhase · oak", "▸ new-1 · 2 s · buildPhase · oak", "[0/0 built]"});
}

TEST_CASE("the rest is the longest way, or all work over as many as ever ran at once") {
  step_forest f(graph("all <- a b c d; a <- leaf"));
  for (const auto* name : {"all", "a", "b", "c", "d", "leaf"})
    f.learn(name, 10s);
  CHECK(f.rest({running("leaf", 4000), running("b", 0)}, 4) == 26s); // 6 of leaf, a, all
  CHECK(f.rest({running("leaf", 4000), running("b", 0)}, 1) == 56s);
  f.take(event("leaf", step_state::built));
  f.take(event("b", step_state::built));
  CHECK(f.rest({running("a", 25'000)}, 1) == 30s); // a is late: no more than usual is taken off
}

TEST_CASE("nothing is guessed if less than half of what is left is known") {
  step_forest f(graph("all <- a b c"));
  f.learn("a", 10s);
  CHECK_FALSE(f.rest({}, 1));
  f.learn("b", 20s);
  CHECK(f.rest({}, 1) == 60s); // the others count with the mean
}
