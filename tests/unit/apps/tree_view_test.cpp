#include "apps/common/text.hpp"
#include "apps/common/tree_view.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace coppice;
using namespace coppice::app;

namespace {

actor_status actor(const std::string& path, std::uint64_t restarts = 0, const std::string& last_exit = {}) {
  actor_status s;
  s.path = path;
  s.state = actor_state::up;
  s.uptime_ms = 61'000;
  s.restarts = restarts;
  s.handled = 7;
  s.last_exit = last_exit;
  return s;
}

} // namespace

TEST_CASE("the tree is drawn with its branches, restarts and reasons") {
  auto busy = actor("/oak/lock/session");
  busy.doing = "lease: 12 s left";
  const auto top =
      as_tree({actor("/oak/lock"), actor("/oak/lock/ledger", 2, "killed"), busy, actor("/oak/observatory")});
  CHECK(tree_lines(top, "oak", 0) ==
        std::vector<std::string>{"ACTOR           STATE  UPTIME    RESTARTS  MAILBOX  HANDLED  DOING",
                                 "oak             up     0.0 s     0         0        0",
                                 "├─ lock         up     1 m 01 s  0         0        7",
                                 "│  ├─ ledger    up     1 m 01 s  2         0        7        (last end: killed)",
                                 "│  └─ session   up     1 m 01 s  0         0        7        lease: 12 s left",
                                 "└─ observatory  up     1 m 01 s  0         0        7"});
}

TEST_CASE("a narrow terminal shows the names, and what fits of the rest") {
  auto busy = actor("/oak/work/a-worker-with-a-very-long-name.17", 1, "killed");
  busy.doing = "building";
  const auto top = as_tree({busy});
  for (std::size_t width : {1, 20, 40, 69, 70, 90, 110, 200})
    for (const auto& line : tree_lines(top, "oak", width)) CHECK(columns(line) <= width);
  CHECK(tree_lines(top, "oak", 40)[0].find("RESTARTS") == std::string::npos);
  CHECK(tree_lines(top, "oak", 40)[3].find("building") != std::string::npos);
  CHECK(tree_lines(top, "oak", 80)[0].find("RESTARTS") != std::string::npos);
}

TEST_CASE("of an actor that waits to be started again the tree says when, and why it ended") {
  auto waiting = actor("/oak/ledger", 0, "crashed: no disk");
  waiting.state = actor_state::restarting;
  waiting.restart_in_ms = 1'500;
  const auto top = as_tree({waiting, actor("/oak/observatory")});
  CHECK(tree_lines(top, "oak", 0)[2].find("(last end: crashed: no disk) starts again in 1.5 s") != std::string::npos);
  CHECK(tree_json(top)["children"][0]["restart_in_ms"] == 1'500);
}

TEST_CASE("supervisors that were not told of are filled in") {
  const auto top = as_tree({actor("/oak/workers/x")});
  CHECK(top.status.path == "/oak");
  REQUIRE(top.children.size() == 1);
  CHECK(top.children[0].status.path == "/oak/workers");
  CHECK(top.children[0].children[0].status.path == "/oak/workers/x");
}

TEST_CASE("the tree's JSON is nested") {
  const auto json = tree_json(as_tree({actor("/oak/ledger", 2)}));
  CHECK(json["path"] == "/oak");
  const auto& ledger = json["children"][0];
  CHECK(ledger["path"] == "/oak/ledger");
  CHECK(ledger["state"] == "up");
  CHECK(ledger["restarts"] == 2);
  CHECK(ledger["uptime_s"] == 61.0);
  CHECK(ledger["mailbox"] == 0);
  CHECK(ledger["children"].empty());
}
