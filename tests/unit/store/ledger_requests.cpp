#include "ledger_support.hpp"

using namespace coppice;
using namespace coppice::test;
using ledger::phase;

TEST_CASE("T15: a cancel that lets finish frees what was not started, and leaves what runs alone", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.acquire(1);
  auto running = f.build(2);
  auto built = f.build(3);
  f.done(ledger::partial{key(3), built});
  f.ask<ledger::request_row>(ledger::cancel{request(0), "alice", true});
  REQUIRE(f.row(0).state == request_state::cancelled);
  REQUIRE(f.lock(1).phase == ledger::phase::free);
  REQUIRE(f.lock(2).phase == ledger::phase::building);
  f.commit(2, running);
  f.commit(3, built);
  REQUIRE(f.lock(2).phase == ledger::phase::realised);
  REQUIRE(f.lock(3).phase == ledger::phase::realised);
}

TEST_CASE("T3: a request whose closure was collected before it is accepted is not", "[ledger]") {
  farm f{EVERY_LEDGER};
  ledger::submit late{request(7), "alice", f.row(0).body};
  late.body.closure = blob(907);
  f.put_blob(907);
  REQUIRE_FALSE(f.ask<ledger::blob_state>(ledger::condemn{blob(907), {1}}).present);
  REQUIRE(f.refused(late) == ec::missing);
  f.done(ledger::register_blob{blob(907), {2}, 100});
  REQUIRE(f.ask<ledger::request_row>(late).state == request_state::open);
  REQUIRE(f.refused(ledger::condemn{blob(907), {2}}) == ec::conflict);
}

TEST_CASE("T1: a node that starts again loses the locks of its former life", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.done(ledger::open_session{node(1), incarnation{2}, session(11)});
  REQUIRE(f.lock(1).phase == phase::free);
  REQUIRE(f.lock(1).token == token);
  REQUIRE(f.attempts(1).at(0).result == failure::infra);
  REQUIRE(f.refused(ledger::keep_alive{session(1)}) == ec::session_over);
  f.done(ledger::keep_alive{session(11)});
}

TEST_CASE("T1: requests of a node that starts again have no owner", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.run(ledger::open_session{node(0), incarnation{2}, session(10)});
  REQUIRE(f.changed.requests == std::vector{request(0)});
  REQUIRE(f.row(0).owner == session_id{});
  REQUIRE(f.row(0).epoch == epoch{1});
  REQUIRE(f.adopt(0, 1) == epoch{2});
}

TEST_CASE("T1: a former process of the node is refused", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.done(ledger::open_session{node(1), incarnation{5}, session(15)});
  REQUIRE(f.refused(ledger::open_session{node(1), incarnation{4}, session(14)}) == ec::session_over);
  REQUIRE(f.refused(ledger::open_session{node(1), incarnation{5}, session(14)}) == ec::session_over);
  f.done(ledger::keep_alive{session(15)});
}

TEST_CASE("T1: two nodes cannot have one session", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.refused(ledger::open_session{node(3), incarnation{1}, session(1)}) == ec::conflict);
  REQUIRE(f.refused(ledger::open_session{{}, incarnation{1}, session(3)}) == ec::invalid);
}

TEST_CASE("T2: a session that nobody opened cannot be kept alive", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.refused(ledger::keep_alive{session(99)}) == ec::session_over);
}

TEST_CASE("T18: a session's end frees its locks and requests, and it can be opened again", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.build(1);
  f.done(ledger::partial{key(2), f.build(2)});
  f.acquire(3, 0, 0);
  f.realise(4);
  f.done(ledger::expire{session(1)});
  REQUIRE(f.lock(1).phase == phase::free);
  REQUIRE(f.lock(2).phase == phase::free);
  REQUIRE(f.lock(3).phase == phase::queued);
  REQUIRE(f.lock(4).phase == phase::realised);
  REQUIRE(f.refused(ledger::keep_alive{session(1)}) == ec::session_over);
  REQUIRE(f.backend().sessions() == std::vector{session(0)});
  f.done(ledger::open_session{node(1), incarnation{1}, session(1)});
  f.done(ledger::keep_alive{session(1)});
  REQUIRE(f.lock(1).phase == phase::free);
  REQUIRE(f.backend().sessions() == std::vector{session(0), session(1)});
}

TEST_CASE("T18: the end of a session with thousands of locks frees them all", "[ledger]") {
  farm f{GENERATE(kind::memory, kind::sqlite)};
  std::vector<ledger::any_transaction> batch;
  for (unsigned k = 0; k < 2000; ++k)
    batch.emplace_back(f.acquiring(k));
  ledger::changed changed;
  f.backend().run(batch, 1, changed);
  REQUIRE(changed.locks.size() == 2000);
  SECTION("by its lease") {
    f.run(ledger::expire{session(0)});
  }
  SECTION("by the request's cancellation") {
    f.run(ledger::cancel{request(0), "alice"});
  }
  REQUIRE(f.changed.locks.size() == 2000);
  REQUIRE(f.ask<ledger::lock_states>(ledger::held_locks{}).rows.empty());
}

TEST_CASE("T3: a request is submitted once, however often it is said", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.submit(1);
  auto row = f.row(1);
  REQUIRE(row.number == 2);
  REQUIRE(row.client == "alice");
  REQUIRE(row.submitted_ms == f.now_ms);
  REQUIRE(row.body.roots.at(0).drv == drv(1));
  REQUIRE(f.refused(ledger::submit{request(1), "bob", row.body}) == ec::conflict);
  auto body = row.body;
  body.priority = 5;
  REQUIRE(f.refused(ledger::submit{request(1), "alice", body}) == ec::conflict);
  REQUIRE(f.refused(ledger::submit{{}, "alice", body}) == ec::invalid);
}

TEST_CASE("T4: one of two adopters wins", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.submit(1);
  REQUIRE(f.row(1).owner == session_id{});
  REQUIRE(f.adopt(1, 1) == epoch{1});
  REQUIRE(f.refused(ledger::adopt{request(1), session(0)}) == ec::not_owner);
  REQUIRE(f.row(1).owner == session(1));
}

TEST_CASE("T4: only an open, known request can be adopted, by a living session", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.refused(ledger::adopt{request(9), session(0)}) == ec::not_found);
  REQUIRE(f.refused(ledger::adopt{request(0), session(9)}) == ec::session_over);
  f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"});
  REQUIRE(f.refused(ledger::adopt{request(0), session(0)}) == ec::conflict);
}

TEST_CASE("T14: success is told only of what is published", "[ledger]") {
  farm f{EVERY_LEDGER};
  const auto claim = [&f] { return f.finishing(0, request_state::succeeded, {key(1)}); };
  REQUIRE(f.refused(claim()) == ec::invalid);
  f.commit(1, f.build(1));
  REQUIRE(f.refused(claim()) == ec::invalid);
  f.publish(1);
  const auto t = claim();
  auto row = f.ask<ledger::request_row>(t);
  REQUIRE(row.state == request_state::succeeded);
  REQUIRE(row.result == t.result);
  REQUIRE(f.row(0) == row);
}

// found by the simulator, seed 11005: a request is not interested in what it found there
TEST_CASE("T14: a success does not tell of outputs that were retired and made anew", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.submit(1, "bob");
  f.adopt(1);
  f.realise(1, 1);
  const auto seen = f.finishing(0, request_state::succeeded, {key(1)});
  f.ask<ledger::request_row>(f.finishing(1, request_state::succeeded, {key(1)}));
  f.done(ledger::retire{key(1)});
  REQUIRE(f.refused(seen) == ec::invalid);
  const auto token = f.build(1);
  f.put_blob(2);
  f.done(ledger::commit{key(1), token, {{"out", info("step1", 2)}}});
  f.publish(1);
  REQUIRE(f.refused(seen) == ec::invalid);
  REQUIRE(f.text.find("other outputs") != std::string::npos);
  auto untold = seen;
  untold.result.roots.clear();
  REQUIRE(f.refused(untold) == ec::invalid);
  f.ask<ledger::request_row>(f.finishing(0, request_state::succeeded, {key(1)}));
}

TEST_CASE("T14: a success without roots, or a result that says open, is refused", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.refused(f.finishing(0, request_state::succeeded)) == ec::invalid);
  REQUIRE(f.refused(f.finishing(0, request_state::open)) == ec::invalid);
}

TEST_CASE("T14: a request has one answer", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto first = f.finishing(0, request_state::failed);
  first.result.reason = "first";
  f.ask<ledger::request_row>(first);
  auto second = f.finishing(0, request_state::cancelled);
  REQUIRE(f.ask<ledger::request_row>(second).result == first.result);
  REQUIRE(f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"}).result == first.result);
  REQUIRE(f.refused(f.acquiring(1)) == ec::not_owner);
}

TEST_CASE("T14: only the owner's epoch finishes", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.done(ledger::expire{session(0)});
  f.adopt(0, 1);
  REQUIRE(f.refused(f.finishing(0, request_state::failed)) == ec::not_owner);
  REQUIRE(f.refused(f.finishing(9, request_state::failed)) == ec::not_found);
}

TEST_CASE("T15: a cancelled request's builds are fenced off", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  auto row = f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"});
  REQUIRE(row.state == request_state::cancelled);
  REQUIRE(row.result->roots.at(0).failure == failure::cancelled);
  REQUIRE(f.lock(1).phase == phase::free);
  REQUIRE(f.lock(1).token > token);
  REQUIRE(f.attempts(1).at(0).result == failure::cancelled);
  f.put_blob(1);
  REQUIRE(f.refused(f.committing(1, token)) == ec::stale);
}

TEST_CASE("T15: what another open request waits for goes on", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.submit(1, "bob");
  f.adopt(1);
  auto token = f.build(1);
  f.refused_lock(1, 1);
  f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"});
  REQUIRE(f.lock(1).phase == phase::building);
  REQUIRE(f.lock(1).token == token);
  f.ask<ledger::request_row>(ledger::cancel{request(1), "bob"});
  REQUIRE(f.lock(1).phase == phase::free);
}

TEST_CASE("T15: interest ends with its request", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.submit(1, "bob");
  f.adopt(1);
  f.build(1);
  f.refused_lock(1, 1);
  f.ask<ledger::request_row>(f.finishing(1, request_state::failed));
  f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"});
  REQUIRE(f.lock(1).phase == phase::free);
}

TEST_CASE("T15: a request is cancelled by its client or an admin, by nobody else", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.refused(ledger::cancel{request(0), "bob"}) == ec::forbidden);
  REQUIRE(f.refused(ledger::cancel{request(9), "bob"}) == ec::not_found);
  REQUIRE(f.row(0).state == request_state::open);
  REQUIRE(f.ask<ledger::request_row>(ledger::cancel{request(0), ""}).state == request_state::cancelled);
  REQUIRE(f.refused(ledger::cancel{request(0), "bob"}) == ec::forbidden);
}

TEST_CASE("all open requests are told, and the newest of the others", "[ledger]") {
  farm f{EVERY_LEDGER};
  for (unsigned r = 1; r < 6; ++r)
    f.submit(r);
  for (unsigned r = 1; r < 4; ++r)
    f.ask<ledger::request_row>(ledger::cancel{request(r), ""});
  std::vector<request_id> ids;
  for (auto& row : f.ask<ledger::request_rows>(ledger::read_requests{{}, 2}).rows)
    ids.push_back(row.id);
  REQUIRE(ids == std::vector{request(0), request(4), request(5), request(3), request(2)});
  REQUIRE(f.ask<ledger::request_rows>(ledger::read_requests{request(77), 2}).rows.empty());
}

TEST_CASE("requests come in pages: open ones by age, the others from the newest", "[ledger]") {
  farm f{EVERY_LEDGER};
  for (unsigned r = 1; r < 8; ++r)
    f.submit(r);
  for (unsigned r = 1; r < 4; ++r)
    f.ask<ledger::request_row>(ledger::cancel{request(r), ""});
  auto page = [&](std::uint32_t limit, std::uint32_t open_limit, std::uint64_t open_after, std::uint64_t ended_before) {
    auto rows = f.ask<ledger::request_rows>(ledger::read_requests{{}, limit, open_limit, open_after, ended_before}).rows;
    std::vector<request_id> ids;
    for (auto& row : rows)
      ids.push_back(row.id);
    return std::pair{ids, rows.empty() ? 0 : rows.back().number};
  };
  auto [first, last] = page(0, 2, 0, 0);
  REQUIRE(first == std::vector{request(0), request(4)});
  REQUIRE(page(0, 10, last, 0).first == std::vector{request(5), request(6), request(7)});
  auto [newest, before] = page(2, 0, 0, 0);
  REQUIRE(newest == std::vector{request(3), request(2)});
  REQUIRE(page(2, 0, 0, before).first == std::vector{request(1)});
}

TEST_CASE("a batch tells each changed inhash once, in its last state", "[ledger]") {
  farm f{EVERY_LEDGER};
  std::vector<ledger::any_transaction> batch{f.acquiring(1), ledger::start{key(1), {1}, who(1, 7), node(1)},
                                             ledger::partial{key(2), {0}}, f.acquiring(2)};
  ledger::changed changed;
  auto answers = f.backend().run(batch, 1, changed);
  REQUIRE(answers[1] == ledger::any_answer{ledger::granted{{2}}});
  REQUIRE(answers[2].error().code == ec::stale);
  REQUIRE(changed.locks == std::vector{f.lock(1), f.lock(2)});
  REQUIRE(changed.locks[0].phase == phase::building);
  REQUIRE_FALSE(changed.outbox);
}
