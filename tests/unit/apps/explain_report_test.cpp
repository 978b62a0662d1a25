#include "apps/common/admin_report.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace coppice;
using namespace coppice::app;

namespace {

nix::store_path drv_of(const std::string& name) {
  return *nix::store_path::from_base_name(std::string(32, '0') + "-" + name + ".drv");
}

/// What one open request says of a derivation.
explanation seen_as(step_life life) {
  explanation e;
  e.drv = drv_of("app");
  e.at_ms = 1'700'000'060'000;
  step_view v;
  v.client = "alice";
  v.drv = *e.drv;
  v.key.bytes.fill(7);
  v.life = life;
  e.requests = {v};
  e.requests_count = 1;
  return e;
}

bool has(const std::vector<std::string>& lines, const std::string& text) {
  for (auto& line : lines)
    if (line.find(text) != line.npos) return true;
  return false;
}

std::vector<std::string> told(const explanation& e) {
  return explanation_lines(e, drv_of("app"));
}

} // namespace

TEST_CASE("what nobody has heard of is explained as unknown") {
  explanation e;
  e.drv = drv_of("app");
  CHECK(explained_state(e) == "unknown");
  CHECK(told(e).front().starts_with("app: no open request wants it"));
  CHECK(explanation_json(e)["lock"].is_null());
}

TEST_CASE("a path that nothing is known to make is told so") {
  CHECK(has(explanation_lines({}, *nix::store_path::from_base_name(std::string(32, '0') + "-x")),
            "none is known that makes"));
}

TEST_CASE("a step that waits names its inputs, the first ones and how many more") {
  auto e = seen_as(step_life::wanted);
  e.requests[0].inputs = {{drv_of("zlib"), step_life::building}};
  e.requests[0].inputs_count = 12;
  CHECK(explained_state(e) == "waits_for_inputs");
  CHECK(told(e).front() == "app: it waits for 12 inputs");
  CHECK(has(told(e), "zlib: building"));
  CHECK(has(told(e), "… and 11 more"));
}

TEST_CASE("a step whose lock is held elsewhere names the holder and since when") {
  auto e = seen_as(step_life::waiting);
  e.lock.emplace();
  e.lock->phase = ledger::phase::partial;
  e.lock->token = {9};
  e.lock->node = {"oak"};
  e.attempts.push_back({});
  e.attempts[0].token = {9};
  e.attempts[0].started_ms = 1'700'000'000'000;
  CHECK(explained_state(e) == "waits_for_lock");
  CHECK(told(e).front() == "app: somebody else holds its lock");
  CHECK(has(told(e), "partial under token 9 on oak, since 2023-11-14T22:13:20Z (1 m 00 s)"));
}

TEST_CASE("a step in the queue has a place, names what is ahead, and each machine's reason") {
  auto e = seen_as(step_life::queued);
  e.place.emplace();
  e.place->job.emplace();
  e.place->job->position = 30;
  e.place->total = 40;
  e.place->ahead.resize(2);
  e.place->machines = {{{"oak"}, "is drained: new disks"}, {{"elm"}, ""}};
  CHECK(explained_state(e) == "queued");
  CHECK(told(e).front() == "app: it waits for a machine, as number 30 of 40");
  CHECK(has(told(e), "… and 27 more"));
  CHECK(has(told(e), "oak is drained: new disks"));
  CHECK(has(told(e), "elm can take it now"));
  auto json = explanation_json(e);
  CHECK(json["place"]["position"] == 30);
  CHECK(json["place"]["machines"][0]["why"] == "is drained: new disks");
}

TEST_CASE("each way to stand has a word and a sentence of its own") {
  auto state = [](step_life l) { return explained_state(seen_as(l)); };
  CHECK(state(step_life::unknown) == "not_wanted");
  CHECK(state(step_life::asked) == "planning");
  CHECK(state(step_life::ready) == "waits_for_lock");
  CHECK(state(step_life::acquiring) == "waits_for_lock");
  CHECK(state(step_life::delayed) == "retry");
  CHECK(state(step_life::building) == "building");
  CHECK(state(step_life::failed) == "failed");
  CHECK(state(step_life::not_attempted) == "not_attempted");
  auto late = seen_as(step_life::delayed);
  late.requests[0].retry_in_ms = 8'000;
  CHECK(told(late).front() == "app: its last try came to nothing; the next one is in 8.0 s");
  auto ready = seen_as(step_life::ready);
  ready.requests[0].ready_ahead = 3;
  CHECK(told(ready).front() == "app: it is ready, and waits behind 3 steps of its request");
  auto fetched = seen_as(step_life::waiting);
  fetched.requests[0].upstream = true;
  CHECK(explained_state(fetched) == "fetching");
}

TEST_CASE("what the ledger has is built, whatever a request still says") {
  auto e = seen_as(step_life::building);
  e.lock.emplace();
  e.lock->phase = ledger::phase::realised;
  CHECK(explained_state(e) == "publishing");
  e.lock->published = true;
  CHECK(explained_state(e) == "built");
}

TEST_CASE("control characters of builders do not reach the terminal") {
  auto e = seen_as(step_life::building);
  e.requests[0].running.emplace();
  e.requests[0].running->node = {"oak"};
  e.requests[0].running->last_line = "\x1b[31mred\a";
  for (auto& line : told(e)) {
    CHECK(line.find('\x1b') == line.npos);
    CHECK(line.find('\a') == line.npos);
  }
}
