#include "apps/common/event_text.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace coppice;
using namespace coppice::app;

namespace {

farm_event ended_attempt() {
  farm_event e;
  e.seq = 12;
  e.at_ms = 1'714'566'605'250; // 2024-05-01T12:30:05Z
  e.kind = event_kind::attempt_ended;
  e.drv = *nix::store_path::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-hello-2.12.drv");
  e.key.bytes[0] = 1;
  e.token = {7};
  e.node = {"oak"};
  e.failure = failure::timed_out;
  e.duration_ms = 1'200;
  e.text = "no output\x1b[31m\nfor too long";
  return e;
}

} // namespace

TEST_CASE("an event is one line for people, without what a builder may have put into its reason") {
  CHECK(event_line(ended_attempt()) ==
        "12:30:05  attempt_ended     hello-2.12  timed_out, took 1.2 s, token 7, on oak, no output");
  farm_event died;
  died.kind = event_kind::actor_died;
  died.actor = "/oak/lock/ledger";
  died.text = "killed";
  CHECK(event_line(died) == "00:00:00  actor_died        /oak/lock/ledger  killed");
}

TEST_CASE("an event is one JSON object for scripts, with the fields that say something") {
  auto json = event_json(ended_attempt(), 99);
  CHECK(json["epoch"] == 99);
  CHECK(json["seq"] == 12);
  CHECK(json["event"] == "attempt_ended");
  CHECK(json["result"] == "timed_out");
  CHECK(json["seconds"] == 1.2);
  CHECK(json["drv"] == "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello-2.12.drv");
  CHECK(!json.contains("actor"));
  CHECK(!json.contains("bytes"));
}

TEST_CASE("a label of an actor does not name what came at run time") {
  CHECK(actor_label("/oak") == "/");
  CHECK(actor_label("/oak/observatory") == "/observatory");
  CHECK(actor_label("/oak/lock/ledger") == "/lock/ledger");
  CHECK(actor_label("/oak/work/workers/hello-2.12.17") == "/work/workers/*");
  CHECK(actor_label("/oak/work/workers/hello-2.12.17.log") == "/work/workers/*");
  CHECK(actor_label("") == "/");
}
