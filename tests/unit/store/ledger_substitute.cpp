#include "ledger_support.hpp"

using namespace coppice;
using namespace coppice::test;
using ledger::phase;

namespace {

ledger::substitute substituting(unsigned k) {
  return {key(k), drv(k), {{"out", info("step" + std::to_string(k), k)}}};
}

} // namespace

TEST_CASE("T19: what an upstream cache had is realised, published like any other, and bears a success out",
          "[ledger]") {
  farm f{EVERY_LEDGER};
  f.put_blob(1);
  f.done(substituting(1));
  REQUIRE(f.lock(1).phase == phase::realised);
  REQUIRE(f.lock(1).drv == drv(1));
  REQUIRE(f.lock(1).outputs == substituting(1).outputs);
  REQUIRE(f.ask<ledger::lock_states>(ledger::outbox{10}).rows.size() == 1);
  REQUIRE(f.refused(f.finishing(0, request_state::succeeded, {key(1)})) == ec::invalid); // INV-3
  f.publish(1);
  f.ask<ledger::request_row>(f.finishing(0, request_state::succeeded, {key(1)}));
}

TEST_CASE("T19: its path may be known already as an import, but not with other contents", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.put_blob(1);
  f.put_blob(2);
  SECTION("the same") {
    f.done(ledger::add_source{info("step1", 1)});
    f.done(substituting(1));
  }
  SECTION("another") {
    f.done(ledger::add_source{info("step1", 2)});
    REQUIRE(f.refused(substituting(1)) == ec::conflict); // INV-4
    REQUIRE(f.lock(1).phase == phase::free);
  }
}

TEST_CASE("T19: needs the blob, in its present generation", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.refused(substituting(1)) == ec::upload_again);
  f.put_blob(1);
  f.ask<ledger::blob_state>(ledger::condemn{blob(1), {1}});
  REQUIRE(f.refused(substituting(1)) == ec::upload_again);
}

TEST_CASE("T19: whoever holds the lock is not disturbed, and what is realised stays", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.put_blob(1);
  REQUIRE(f.refused(substituting(1)) == ec::conflict);
  f.commit(1, token);
  auto other = substituting(1);
  other.outputs[0].info = info("step1", 2);
  f.done(other);
  REQUIRE(f.lock(1).outputs == substituting(1).outputs);
}

TEST_CASE("T19: a failure is forgotten, and a late word of the attempt changes nothing", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.done(ledger::fail_attempt{key(1), token, failure::build_failed, "exit code 1", ""});
  f.put_blob(1);
  f.put_blob(2);
  f.done(substituting(1));
  REQUIRE_FALSE(f.lock(1).failed);
  ledger::commit late{key(1), token, {{"out", info("step1", 2)}}};
  REQUIRE(f.refused(late) == ec::stale);
  REQUIRE(f.lock(1).outputs == substituting(1).outputs);
}
