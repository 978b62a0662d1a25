#include "ledger_support.hpp"

using namespace coppice;
using namespace coppice::test;

// farm::ask() says each transaction twice, and the second time it must tell nothing.

namespace {

/// The one event that the last transaction told.
farm_event told(const farm& f) {
  REQUIRE(f.changed.events.size() == 1);
  return f.changed.events[0];
}

} // namespace

TEST_CASE("an attempt is told from its start to the publication of what it built", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto queued = f.acquire(1);
  CHECK(f.changed.events.empty());
  auto token = f.start(1, queued);
  auto started = told(f);
  CHECK(started.kind == event_kind::attempt_started);
  CHECK(started.drv == drv(1));
  CHECK(started.key == key(1));
  CHECK(started.token == token);
  CHECK(started.node == node(1));
  f.done(ledger::partial{key(1), token});
  CHECK(told(f).kind == event_kind::upload_partial);
  f.put_blob(1);
  auto commit = f.committing(1, token);
  commit.usage.wall_ms = 1'234;
  f.done(commit);
  auto ended = told(f);
  CHECK(ended.kind == event_kind::attempt_ended);
  CHECK(ended.failure == failure::none);
  CHECK(ended.node == node(1)); // although nobody holds the lock any more
  CHECK(ended.duration_ms == 1'234);
  CHECK(ended.bytes == commit.outputs[0].info.nar_size);
  f.publish(1);
  CHECK(told(f).kind == event_kind::published);
  f.done(ledger::published{key(1), commit.outputs});
  CHECK(f.changed.events.empty());
}

TEST_CASE("however an attempt ends, its end is told once", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  auto why = failure::infra;
  SECTION("by its worker") {
    why = failure::timed_out;
    f.done(ledger::fail_attempt{key(1), token, why, "too slow", {}, {}, {}});
    CHECK(told(f).text == "too slow");
  }
  SECTION("by being given up") {
    f.done(ledger::release{key(1), token, why, "its machine is in trouble"});
  }
  SECTION("with its node's lease") {
    f.done(ledger::expire{session(1)});
  }
  auto ended = told(f);
  CHECK(ended.kind == event_kind::attempt_ended);
  CHECK(ended.failure == why);
  CHECK(ended.token == token);
  CHECK(ended.node == node(1));
  f.done(ledger::fail_attempt{key(1), token, failure::build_failed, "late", {}, {}, {}});
  CHECK(f.changed.events.empty());
}

TEST_CASE("a request is told when it is accepted and when it ends, with what its cancellation ended", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.submit(1, "lena");
  auto accepted = told(f);
  CHECK(accepted.kind == event_kind::request_accepted);
  CHECK(accepted.request == request(1));
  CHECK(accepted.count == 1);
  CHECK(accepted.text == "lena");
  f.adopt(1);
  f.build(1, 1);
  f.now_ms += 2'500;
  f.ask<ledger::request_row>(ledger::cancel{request(1), "lena", false});
  REQUIRE(f.changed.events.size() == 2);
  CHECK(f.changed.events[0].kind == event_kind::attempt_ended);
  CHECK(f.changed.events[0].failure == failure::cancelled);
  CHECK(f.changed.events[1].kind == event_kind::request_ended);
  CHECK(f.changed.events[1].outcome == request_state::cancelled);
  CHECK(f.changed.events[1].duration_ms == 2'500);
}

TEST_CASE("a lock that is given back before any attempt is no event", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.acquire(1);
  f.done(ledger::release{key(1), token, failure::cancelled, "no longer wanted"});
  CHECK(f.changed.events.empty());
}
