#include "ledger_support.hpp"

using namespace coppice;
using namespace coppice::test;
using ledger::phase;

TEST_CASE("T10: a blob is registered under the generation it was put", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.stat(1) == ledger::blob_state{{1}, false});
  REQUIRE(f.refused(ledger::register_blob{blob(1), {2}, 5}) == ec::upload_again);
  f.done(ledger::register_blob{blob(1), {1}, 5});
  REQUIRE(f.stat(1) == ledger::blob_state{{1}, true});
}

TEST_CASE("T11: a commit realises all outputs at once", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.put_blob(1);
  f.put_blob(2);
  ledger::commit t{key(1), token, {{"out", info("step1", 1)}, {"dev", info("step1-dev", 2)}}};
  f.done(t);
  auto row = f.lock(1);
  REQUIRE(row.phase == phase::realised);
  REQUIRE(row.holder == holder{});
  REQUIRE(row.token == token);
  REQUIRE(row.node == node(1));
  REQUIRE(row.outputs == std::vector{t.outputs[1], t.outputs[0]});
  REQUIRE(f.attempts(1).at(0).ended_ms);
  REQUIRE(f.attempts(1).at(0).result == failure::none);
  REQUIRE(f.ask<ledger::path_infos>(ledger::read_paths{{path("nothing"), path("step1-dev")}}).rows ==
          std::vector{info("step1-dev", 2)});
}

TEST_CASE("what a machine has built it is told to hold, as long as its session lasts", "[ledger]") {
  farm f{EVERY_LEDGER};
  const std::vector asked{path("step1"), path("step2"), path("source"), path("nothing")};
  const ledger::path_holder held{path("step1"), node(1), "http://b:8080"};
  auto holders = [&] { return f.ask<ledger::path_infos>(ledger::read_paths{asked, true}).holders; };
  f.realise(1);
  f.realise(2);
  f.put_blob(3);
  f.done(ledger::add_source{info("source", 3)});
  REQUIRE(holders().empty()); // it said of no address
  f.done(ledger::open_session{node(1), incarnation{2}, session(11), 0, held.url});
  REQUIRE(holders() == std::vector{held, {path("step2"), held.node, held.url}});
  REQUIRE(f.ask<ledger::path_infos>(ledger::read_paths{asked}).holders.empty());
  SECTION("and no longer") {
    f.done(ledger::expire{session(11)});
    REQUIRE(holders().empty());
    f.done(ledger::open_session{node(1), incarnation{2}, session(11), 0, held.url});
    REQUIRE(holders().size() == 2);
  }
  SECTION("at the address that its newest process has") {
    f.done(ledger::open_session{node(1), incarnation{3}, session(12), 0, "http://b:9"});
    REQUIRE(holders().at(0).url == "http://b:9");
  }
  SECTION("unless that is retired") {
    f.done(ledger::gone{blob(2), {1}});
    REQUIRE(f.lock(2).node.empty());
    REQUIRE(holders() == std::vector{held});
  }
}

TEST_CASE("T11: a stale token cannot commit", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto queued = f.acquire(1);
  f.put_blob(1);
  SECTION("the coordinator's own") {
    REQUIRE(f.refused(f.committing(1, queued)) == ec::stale);
  }
  SECTION("the one a worker's start consumed") {
    f.start(1, queued);
    REQUIRE(f.refused(f.committing(1, queued)) == ec::stale);
    REQUIRE_THAT(f.text, Catch::Contains("building on b under token 2"));
  }
  SECTION("of a worker whose lease ended") {
    auto token = f.start(1, queued);
    f.done(ledger::expire{session(1)});
    REQUIRE(f.refused(f.committing(1, token)) == ec::stale);
  }
  SECTION("of a worker that another one has overtaken") {
    auto token = f.start(1, queued);
    f.done(ledger::release{key(1), token, failure::infra, ""});
    f.build(1);
    REQUIRE(f.refused(f.committing(1, token)) == ec::stale);
  }
  REQUIRE(f.lock(1).outputs.empty());
}

TEST_CASE("T11: a realisation is not altered by its own token", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.commit(1, token);
  f.put_blob(2);
  ledger::commit other{key(1), token, {{"out", info("step1", 2)}}};
  REQUIRE(f.refused(other) == ec::stale);
  REQUIRE(f.lock(1).outputs == f.committing(1, token).outputs);
}

TEST_CASE("T11: a blob that is not there must be uploaded again", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  REQUIRE(f.refused(f.committing(1, token)) == ec::upload_again);
  f.put_blob(1);
  REQUIRE(f.ask<ledger::blob_state>(ledger::condemn{blob(1), {1}}) == ledger::blob_state{{2}, false});
  REQUIRE(f.refused(f.committing(1, token)) == ec::upload_again);
  f.put_blob(1);
  REQUIRE(f.refused(f.committing(1, token)) == ec::upload_again);
  auto again = f.committing(1, token);
  again.outputs[0].info.gen = {2};
  f.done(again);
}

TEST_CASE("T11: outputs need names, each its own", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.put_blob(1);
  REQUIRE(f.refused(ledger::commit{key(1), token, {}}) == ec::invalid);
  REQUIRE(f.refused(ledger::commit{key(1), token, {{"", info("x", 1)}}}) == ec::invalid);
  REQUIRE(f.refused(ledger::commit{key(1), token, {{"out", info("x", 1)}, {"out", info("y", 1)}}}) == ec::invalid);
}

TEST_CASE("T11: a path has one content", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.realise(1);
  auto token = f.build(2);
  f.put_blob(2);
  REQUIRE(f.refused(ledger::commit{key(2), token, {{"out", info("step1", 2)}}}) == ec::conflict);
  f.done(ledger::commit{key(2), token, {{"out", info("step1", 1)}}});
}

TEST_CASE("T13: what is committed waits in the outbox until it is published", "[ledger]") {
  farm f{EVERY_LEDGER};
  for (unsigned k : {3u, 1u, 2u}) {
    f.commit(k, f.build(k));
    REQUIRE(f.changed.outbox);
  }
  auto waiting = [&](std::uint32_t limit) {
    std::vector<inhash> keys;
    for (auto& row : f.ask<ledger::lock_states>(ledger::outbox{limit}).rows)
      keys.push_back(row.key);
    return keys;
  };
  REQUIRE(waiting(10) == std::vector{key(3), key(1), key(2)});
  REQUIRE(waiting(2) == std::vector{key(3), key(1)});
  f.publish(1);
  REQUIRE(waiting(10) == std::vector{key(3), key(2)});
}

TEST_CASE("T13: a publisher that published something else is told so", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto outputs = f.committing(1, {}).outputs;
  REQUIRE(f.refused(ledger::published{key(1), outputs}) == ec::stale);
  f.commit(1, f.build(1));
  outputs[0].info.nar_size++;
  REQUIRE(f.refused(ledger::published{key(1), outputs}) == ec::stale);
  REQUIRE_FALSE(f.lock(1).published);
}

TEST_CASE("T16: a named blob stays", "[ledger]") {
  farm f{EVERY_LEDGER};
  SECTION("by an output") {
    f.realise(1);
    REQUIRE(f.refused(ledger::condemn{blob(1), {1}}) == ec::conflict);
    f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"});
    f.done(ledger::retire{key(1)});
    REQUIRE(f.ask<ledger::blob_state>(ledger::condemn{blob(1), {1}}).gen == generation{2});
  }
  SECTION("by the second of two outputs that share it") {
    f.realise(1);
    f.done(ledger::commit{key(2), f.build(2), {{"out", info("step1", 1)}}});
    f.publish(2);
    f.ask<ledger::request_row>(ledger::cancel{request(0), ""});
    f.done(ledger::retire{key(1)});
    REQUIRE(f.refused(ledger::condemn{blob(1), {1}}) == ec::conflict);
    REQUIRE(f.ask<ledger::path_infos>(ledger::read_paths{{path("step1")}}).rows.size() == 1);
  }
  SECTION("by a source") {
    f.put_blob(1);
    f.done(ledger::add_source{info("source", 1)});
    REQUIRE(f.refused(ledger::condemn{blob(1), {1}}) == ec::conflict);
  }
  SECTION("by an open request's closure") {
    f.put_blob(900);
    REQUIRE(f.refused(ledger::condemn{blob(900), {1}}) == ec::conflict);
    f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"});
    REQUIRE_FALSE(f.ask<ledger::blob_state>(ledger::condemn{blob(900), {1}}).present);
  }
}

TEST_CASE("T16: a collector that was paused deletes only garbage", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.put_blob(1);
  f.ask<ledger::blob_state>(ledger::condemn{blob(1), {1}});
  f.put_blob(1);
  REQUIRE(f.ask<ledger::blob_state>(ledger::condemn{blob(1), {1}}) == ledger::blob_state{{2}, true});
  REQUIRE(f.refused(ledger::condemn{blob(1), {3}}) == ec::invalid);
  REQUIRE(f.stat(1) == ledger::blob_state{{2}, true});
}

TEST_CASE("T16: an upload that began before the collection cannot be registered after it", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.ask<ledger::blob_state>(ledger::condemn{blob(1), {1}});
  REQUIRE(f.refused(ledger::register_blob{blob(1), {1}, 5}) == ec::upload_again);
}

TEST_CASE("T17: what an open request wants, or nobody has published, is not retired", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.commit(1, f.build(1));
  REQUIRE(f.refused(ledger::retire{key(1)}) == ec::conflict);
  f.publish(1);
  REQUIRE(f.refused(ledger::retire{key(1)}) == ec::conflict);
}

TEST_CASE("T17: what was retired is built again under a higher token", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.realise(1);
  auto token = f.lock(1).token;
  f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"});
  f.done(ledger::retire{key(1)});
  REQUIRE(f.lock(1).phase == phase::free);
  REQUIRE(f.lock(1).outputs.empty());
  REQUIRE(f.ask<ledger::path_infos>(ledger::read_paths{{path("step1")}}).rows.empty());
  f.submit(1);
  f.adopt(1);
  REQUIRE(f.acquire(1, 1) > token);
}

TEST_CASE("a source is known once its blob is there, and keeps its contents", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.refused(ledger::add_source{info("source", 1)}) == ec::upload_again);
  f.put_blob(1);
  f.put_blob(2);
  f.done(ledger::add_source{info("source", 1)});
  REQUIRE(f.refused(ledger::add_source{info("source", 2)}) == ec::conflict);
  REQUIRE(f.ask<ledger::path_infos>(ledger::read_paths{{path("source")}}).rows == std::vector{info("source", 1)});
}

TEST_CASE("T17: what the store lost is retired with all that lay in it, wanted or not, and must be put again", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.realise(1);
  auto token = f.build(2);
  f.put_blob(2);
  f.done(ledger::commit{key(2), token, {{"lib", info("step2-lib", 1)}, {"out", info("step2", 2)}}}); // not published
  f.done(ledger::add_source{info("source", 1)});
  f.realise(3);
  f.done(ledger::gone{blob(1), {1}});
  for (unsigned k : {1u, 2u}) {
    REQUIRE(f.lock(k).phase == ledger::phase::free);
    REQUIRE(f.lock(k).outputs.empty());
    REQUIRE_FALSE(f.lock(k).published);
  }
  REQUIRE(f.lock(3).phase == ledger::phase::realised);
  REQUIRE(f.ask<ledger::lock_states>(ledger::outbox{}).rows.empty());
  REQUIRE(f.ask<ledger::path_infos>(ledger::read_paths{{path("step1"), path("step2"), path("step2-lib"), path("source")}})
            .rows.empty());
  REQUIRE(f.stat(1) == ledger::blob_state{{2}, false});
  REQUIRE(f.refused(ledger::register_blob{blob(1), {1}, 100}) == ec::upload_again); // a late upload
  REQUIRE(f.refused(f.committing(1, f.build(1))) == ec::upload_again);
  auto again = f.committing(1, f.lock(1).token);
  again.outputs[0].info.gen = {2};
  f.put_blob(1);
  f.done(again);
  f.publish(1);
  f.done(ledger::gone{blob(1), {1}}); // late: it was the former life that was lost
  REQUIRE(f.lock(1).phase == ledger::phase::realised);
  REQUIRE(f.refused(ledger::gone{blob(1), {3}}) == ec::invalid);
}
