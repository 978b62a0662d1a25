#include "ledger_support.hpp"

#include <algorithm>
#include <set>
#include <tuple>

using namespace coppice;
using namespace coppice::test;
using ledger::phase;

TEST_CASE("T5: an inhash is granted to one request and busy for the next", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.submit(1);
  f.adopt(1);
  REQUIRE(f.acquire(1) == fence{1});
  auto busy = f.refused_lock(1, 1);
  REQUIRE(busy.phase == phase::queued);
  REQUIRE(busy.token == fence{1});
  REQUIRE(busy.holder == who(0, 100));
  REQUIRE(busy.drv == drv(1));
}

TEST_CASE("T5: a zombie graph with an old epoch cannot acquire", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.done(ledger::expire{session(0)});
  f.adopt(0, 1);
  REQUIRE(f.refused(ledger::acquire{key(1), drv(1), request(0), {1}, who(1, 9)}) == ec::not_owner);
  REQUIRE(f.lock(1).token == fence{});
}

TEST_CASE("T5: an epoch from the future says that the ledger went back", "[ledger]") {
  farm f{EVERY_LEDGER};
  REQUIRE(f.refused(ledger::acquire{key(1), drv(1), request(0), {2}, who(0, 9)}) == ec::ledger_regressed);
}

TEST_CASE("T5: a session that is over cannot take a lock, for its lease would never end", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.done(ledger::expire{session(1)});
  auto t = f.acquiring(1);
  t.who = who(1, 1);
  REQUIRE(f.refused(t) == ec::session_over);
  t.who = who(77, 1);
  REQUIRE(f.refused(t) == ec::session_over);
}

TEST_CASE("T5: an unknown request cannot acquire", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto t = f.acquiring(1, 55);
  REQUIRE(f.refused(t) == ec::not_found);
}

TEST_CASE("T5: what is realised is told with its outputs, published or not", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.commit(1, token);
  auto row = f.refused_lock(1);
  REQUIRE(row.phase == phase::realised);
  REQUIRE_FALSE(row.published);
  REQUIRE(row.outputs == f.committing(1, token).outputs);
  f.publish(1);
  REQUIRE(f.refused_lock(1).published);
}

TEST_CASE("T6: a started attempt has the worker's own token and a row in the history", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto queued = f.acquire(1);
  auto running = f.start(1, queued);
  REQUIRE(running > queued);
  auto row = f.lock(1);
  REQUIRE(row.phase == phase::building);
  REQUIRE(row.origin == queued);
  REQUIRE(row.node == node(1));
  REQUIRE(f.attempts(1) ==
          std::vector{ledger::attempt_row{key(1), running, drv(1), node(1), f.now_ms, {}, failure::none, ""}});
}

TEST_CASE("T6: two workers born of one assignment: the second start is stale", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.acquire(1);
  f.start(1, token, 1, 7);
  REQUIRE(f.refused(ledger::start{key(1), token, who(1, 8), node(1)}) == ec::stale);
}

TEST_CASE("T6: a start after the coordinator's release is stale", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.acquire(1);
  f.done(ledger::release{key(1), token, failure::cancelled, ""});
  REQUIRE(f.refused(ledger::start{key(1), token, who(1, 7), node(1)}) == ec::stale);
}

TEST_CASE("T6: a worker of a node whose session is over cannot start", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.acquire(1);
  f.done(ledger::expire{session(1)});
  REQUIRE(f.refused(ledger::start{key(1), token, who(1, 7), node(1)}) == ec::session_over);
}

TEST_CASE("T7: a released lock is free, and the next holder has a higher token", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.now_ms += 500;
  f.done(ledger::release{key(1), token, failure::inputs_missing, "no libc"});
  auto row = f.lock(1);
  REQUIRE(row.phase == phase::free);
  REQUIRE(row.token == token);
  REQUIRE(row.holder == holder{});
  auto attempt = f.attempts(1).at(0);
  REQUIRE(attempt.result == failure::inputs_missing);
  REQUIRE(attempt.reason == "no libc");
  REQUIRE(attempt.ended_ms == f.now_ms);
  REQUIRE(f.acquire(1) > token);
}

TEST_CASE("T7: a late release of a former holder frees nothing", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto queued = f.acquire(1);
  auto running = f.start(1, queued);
  f.done(ledger::release{key(1), queued, failure::infra, "late"});
  REQUIRE(f.lock(1).phase == phase::building);
  REQUIRE(f.lock(1).token == running);
  REQUIRE(f.lock(1).infra_deaths == 0);
}

TEST_CASE("T7: a release without a reason is refused", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.acquire(1);
  REQUIRE(f.refused(ledger::release{key(1), token, failure::none, ""}) == ec::invalid);
}

TEST_CASE("T8: a partial output keeps its token and can be committed", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.done(ledger::partial{key(1), token});
  REQUIRE(f.lock(1).phase == phase::partial);
  REQUIRE(f.refused_lock(1).phase == phase::partial);
  f.commit(1, token);
  REQUIRE(f.lock(1).phase == phase::realised);
}

TEST_CASE("T8: what was lost meanwhile cannot become partial", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.done(ledger::expire{session(1)});
  REQUIRE(f.refused(ledger::partial{key(1), token}) == ec::stale);
  REQUIRE(f.refused(ledger::partial{key(2), {0}}) == ec::stale);
}

TEST_CASE("T9: a node that was thought dead comes back with its output", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto lost = f.build(1);
  f.done(ledger::expire{session(1)});
  f.done(ledger::open_session{node(1), incarnation{2}, session(11)});
  auto token = f.ask<ledger::granted>(ledger::reclaim{key(1), drv(1), who(11, 3), node(1), true}).token;
  REQUIRE(token > lost);
  REQUIRE(f.lock(1).phase == phase::partial);
  REQUIRE(f.refused(f.committing(1, lost)) == ec::stale);
  f.commit(1, token);
  auto history = f.attempts(1);
  REQUIRE(history.size() == 2);
  REQUIRE(history[0].token == token);
  REQUIRE(history[0].reason == "reclaimed");
  REQUIRE(history[0].result == failure::none);
  REQUIRE(history[1].result == failure::infra);
}

TEST_CASE("T9: a frozen build thaws only if somebody still wants it", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.done(ledger::release{key(1), token, failure::infra, "lease lost"});
  ledger::reclaim t{key(1), drv(1), who(1, 7), node(1), false};
  SECTION("wanted") {
    REQUIRE(f.ask<ledger::granted>(t).token > token);
    REQUIRE(f.lock(1).phase == phase::building);
  }
  SECTION("cancelled") {
    f.ask<ledger::request_row>(ledger::cancel{request(0), "alice"});
    REQUIRE(f.refused(t) == ec::stale);
  }
  SECTION("failed elsewhere") {
    f.done(ledger::fail_attempt{key(1), f.build(1), failure::build_failed, "exit 1", ""});
    REQUIRE(f.refused(t) == ec::stale);
  }
}

TEST_CASE("T9: a token that waits for a worker gives way to a build that came back", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto built = GENERATE(false, true);
  auto lost = f.build(1);
  f.done(ledger::release{key(1), lost, failure::infra, "lease lost"});
  auto waiting = f.acquire(1);
  auto token = f.ask<ledger::granted>(ledger::reclaim{key(1), drv(1), who(1, 7), node(1), built}).token;
  REQUIRE(token > waiting);
  REQUIRE(f.lock(1).phase == (built ? phase::partial : phase::building));
  REQUIRE(f.refused(ledger::start{key(1), waiting, who(0, 9), node(0)}) == ec::stale);
  f.done(ledger::release{key(1), waiting, failure::cancelled, "no longer wanted"});
  REQUIRE(f.lock(1).token == token);
  f.commit(1, token);
}

TEST_CASE("T9: what another holds or has realised cannot be reclaimed", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto lost = f.build(1);
  f.done(ledger::release{key(1), lost, failure::infra, ""});
  auto token = f.build(1, 0, 0);
  ledger::reclaim t{key(1), drv(1), who(1, 7), node(1), true};
  REQUIRE(f.refused(t) == ec::stale);
  f.commit(1, token);
  REQUIRE(f.refused(t) == ec::stale);
}

TEST_CASE("T12: a permanent failure answers older requests, and a later one tries again", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.submit(1);
  f.adopt(1);
  auto token = f.build(1);
  f.done(ledger::fail_attempt{key(1), token, failure::build_failed, "exit 1", "boom"});
  for (unsigned r : {0u, 1u}) {
    auto row = f.refused_lock(1, r);
    REQUIRE(row.phase == phase::free);
    REQUIRE(row.failed == ledger::failure_record{failure::build_failed, token, 2, "exit 1", "boom", 1, f.now_ms});
  }
  f.submit(2);
  f.adopt(2);
  REQUIRE(f.acquire(1, 2) > token);
  REQUIRE(f.attempts(1).at(0).result == failure::build_failed);
  f.commit(1, f.start(1, f.lock(1).token));
  REQUIRE_FALSE(f.lock(1).failed);
}

namespace {

/// A new request fails at it; its failure is told to that request.
void fail_once(farm& f, unsigned r, failure kind = failure::build_failed) {
  f.submit(r);
  f.adopt(r);
  f.done(ledger::fail_attempt{key(1), f.build(1, r), kind, "exit 1", "boom"});
  REQUIRE(f.refused_lock(1, r).failed->failure == kind);
}

const store::ledger_policy twice_in_a_minute{3, 5, 2, std::chrono::minutes{1}};

} // namespace

TEST_CASE("what failed as often as the threshold answers later requests, too, until that fades", "[ledger]") {
  farm f{EVERY_LEDGER, twice_in_a_minute};
  fail_once(f, 1);
  f.now_ms += 1000;
  fail_once(f, 2); // once was not enough
  f.submit(3);
  f.adopt(3);
  auto row = f.refused_lock(1, 3);
  REQUIRE(row.phase == phase::free);
  REQUIRE(row.failed->count == 2);
  REQUIRE(row.failed->after == 3);
  REQUIRE(row.failed->log_tail == "boom");
  f.now_ms += 59'999;
  f.refused_lock(1, 3);
  f.now_ms += 1;
  f.acquire(1, 3); // one has faded
  f.done(ledger::fail_attempt{key(1), f.start(1, f.lock(1).token), failure::timed_out, "too long", ""});
  REQUIRE(f.lock(1).failed->count == 2);
  f.now_ms += 600'000;
  fail_once(f, 4);
  REQUIRE(f.lock(1).failed->count == 1);
}

TEST_CASE("a wall clock that goes back lets no failure fade", "[ledger]") {
  farm f{EVERY_LEDGER, twice_in_a_minute};
  fail_once(f, 1);
  fail_once(f, 2);
  f.now_ms -= 500'000;
  f.submit(3);
  f.adopt(3);
  f.refused_lock(1, 3);
}

TEST_CASE("a request that insists tries again, however often it failed, and others are still answered", "[ledger]") {
  farm f{EVERY_LEDGER, twice_in_a_minute};
  fail_once(f, 1);
  fail_once(f, 2);
  for (unsigned r : {3u, 4u}) {
    f.submit(r);
    f.adopt(r);
  }
  f.refused_lock(1, 4);
  auto insisting = f.acquiring(1, 3);
  insisting.again = true;
  auto token = f.ask<ledger::granted>(insisting).token;
  f.done(ledger::fail_attempt{key(1), f.start(1, token), failure::build_failed, "exit 1", ""});
  REQUIRE(f.ask<ledger::lock_state>(insisting).failed->count == 3); // its own failure answers it
}

TEST_CASE("a threshold of 0 remembers nothing, and a decay of 0 forgets nothing", "[ledger]") {
  auto policy = twice_in_a_minute;
  SECTION("never remembered") {
    policy.failures_threshold = 0;
    farm f{EVERY_LEDGER, policy};
    for (unsigned r = 1; r < 6; ++r)
      fail_once(f, r);
  }
  SECTION("never forgotten") {
    policy.failures_decay = {};
    farm f{EVERY_LEDGER, policy};
    fail_once(f, 1);
    f.now_ms += 1'000'000'000'000;
    fail_once(f, 2);
    f.now_ms += 1'000'000'000'000;
    f.submit(3);
    f.adopt(3);
    f.refused_lock(1, 3);
  }
}

TEST_CASE("what passes and what was cancelled is not remembered", "[ledger]") {
  auto policy = twice_in_a_minute;
  policy.attempts_max = 1;
  farm f{EVERY_LEDGER, policy};
  for (unsigned r = 1; r < 5; ++r)
    fail_once(f, r, failure::store_down);
  REQUIRE(f.lock(1).failed->count == 0);
  f.submit(5);
  f.adopt(5);
  f.build(1, 5);
  f.ask<ledger::request_row>(ledger::cancel{request(5), "alice"});
  REQUIRE(f.lock(1).failed->count == 0);
  REQUIRE(f.lock(1).retries == 0);
}

TEST_CASE("a success forgets all failures before it", "[ledger]") {
  farm f{EVERY_LEDGER, twice_in_a_minute};
  fail_once(f, 1);
  f.submit(2);
  f.adopt(2);
  f.realise(1, 2);
  REQUIRE_FALSE(f.lock(1).failed);
  REQUIRE(f.ask<ledger::failure_rows>(ledger::read_failures{}).rows.empty());
}

TEST_CASE("failures are listed, and forgotten by derivation or all together", "[ledger]") {
  farm f{EVERY_LEDGER, twice_in_a_minute};
  fail_once(f, 1);
  fail_once(f, 2);
  f.now_ms += 10;
  f.done(ledger::fail_attempt{key(2), f.build(2), failure::silent, std::string(1000, 'x'), ""});
  auto listed = [&](ledger::read_failures q) { return f.ask<ledger::failure_rows>(q).rows; };
  auto rows = listed({});
  REQUIRE(rows.size() == 2);
  REQUIRE(rows[0].drv == drv(2));
  REQUIRE(rows[0].reason.size() == ledger::failure_row_reason_bytes_max);
  REQUIRE_FALSE(rows[0].remembered);
  REQUIRE(rows[1] == ledger::failure_row{key(1), drv(1), failure::build_failed, 2, f.now_ms - 10, true, "exit 1"});
  REQUIRE(listed({{}, 1}).size() == 1);
  REQUIRE(listed({drv(1)}).size() == 1);
  f.done(ledger::forget_failures{drv(1)});
  REQUIRE(listed({}).size() == 1);
  f.submit(3);
  f.adopt(3);
  f.acquire(1, 3);
  f.done(ledger::forget_failures{});
  REQUIRE(listed({}).empty());
}

TEST_CASE("T12: what passes by itself is tried again, and at attempts_max fails for those who wait", "[ledger]") {
  farm f{EVERY_LEDGER, store::ledger_policy{3, 3}};
  for (unsigned n = 1; n <= 3; ++n) {
    REQUIRE_FALSE(f.lock(1).failed);
    f.done(ledger::fail_attempt{key(1), f.build(1), failure::inputs_missing, "no libc", "", {}, {path("libc"), path("gmp")}});
    REQUIRE(f.lock(1).retries == n);
    REQUIRE(f.lock(1).missing == std::vector{path("libc"), path("gmp")});
  }
  auto row = f.refused_lock(1);
  REQUIRE(row.failed->failure == failure::inputs_missing);
  REQUIRE(row.failed->reason.ends_with("no libc"));
  f.submit(1);
  f.adopt(1);
  f.acquire(1, 1);
  REQUIRE(f.lock(1).retries == 0);
  REQUIRE(f.lock(1).missing.empty());
}

TEST_CASE("T12: a success in between ends the row of attempts that came to nothing", "[ledger]") {
  farm f{EVERY_LEDGER, store::ledger_policy{3, 3}};
  f.done(ledger::fail_attempt{key(1), f.build(1), failure::store_down, "", ""});
  f.realise(1);
  REQUIRE(f.lock(1).retries == 0);
}

TEST_CASE("an earlier failure does not give a later request endless attempts", "[ledger]") {
  farm f{EVERY_LEDGER, store::ledger_policy{3, 3}};
  fail_once(f, 1);
  f.submit(2);
  f.adopt(2);
  for (int n = 0; n < 3; ++n)
    f.done(ledger::release{key(1), f.build(1, 2), failure::infra, "crashed"});
  REQUIRE(f.refused_lock(1, 2).failed->failure == failure::poisoned);
}

TEST_CASE("T12: a transient failure is nobody's fault", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.done(ledger::fail_attempt{key(1), token, failure::store_down, "", ""});
  REQUIRE_FALSE(f.lock(1).failed);
  REQUIRE(f.acquire(1) > token);
}

TEST_CASE("what the builder used is kept with the attempt, however it ended", "[ledger]") {
  farm f{EVERY_LEDGER};
  const build_usage used{65'000, 3'000, 500, 70'000'000, 1'234};
  SECTION("well") {
    f.put_blob(1);
    auto commit = f.committing(1, f.build(1));
    commit.usage = used;
    f.done(commit);
  }
  SECTION("as a failure") {
    f.done(ledger::fail_attempt{key(1), f.build(1), failure::oom, "too much", "", used});
  }
  SECTION("by giving up") {
    f.done(ledger::release{key(1), f.build(1), failure::infra, "no disk", used});
  }
  CHECK(f.attempts(1).at(0).usage == used);
  CHECK(f.attempts(1).at(0).ended_ms);
}

TEST_CASE("T12: a late failure of a former holder is not recorded", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  f.done(ledger::release{key(1), token, failure::infra, ""});
  f.done(ledger::fail_attempt{key(1), token, failure::build_failed, "exit 1", ""});
  REQUIRE_FALSE(f.lock(1).failed);
}

TEST_CASE("T12: a dependency's failure is never stored", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  REQUIRE(f.refused(ledger::fail_attempt{key(1), token, failure::dependency_failed, "", ""}) == ec::invalid);
}

TEST_CASE("T12: a flood of words is cut", "[ledger]") {
  farm f{EVERY_LEDGER};
  std::string flood(100'000, 'x');
  f.done(ledger::fail_attempt{key(1), f.build(1), failure::build_failed, flood, flood + "end"});
  auto failed = *f.lock(1).failed;
  REQUIRE(failed.log_tail.size() == log_tail_bytes_max);
  REQUIRE(failed.log_tail.ends_with("xend"));
  REQUIRE(failed.reason.size() <= 4096);
}

TEST_CASE("a derivation that takes three machines down is poisoned", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.done(ledger::open_session{node(2), incarnation{1}, session(2)});
  for (unsigned n : {0u, 1u, 1u})
    f.done(ledger::release{key(1), f.build(1, 0, n), failure::infra, "crashed"});
  REQUIRE_FALSE(f.lock(1).failed);
  f.build(1, 0, 2);
  f.done(ledger::expire{session(2)});
  auto row = f.refused_lock(1);
  REQUIRE(row.failed);
  REQUIRE(row.failed->failure == failure::poisoned);
  REQUIRE(row.infra_deaths == 4);
}

TEST_CASE("a derivation that takes the only machine down again and again is poisoned", "[ledger]") {
  farm f{EVERY_LEDGER, store::ledger_policy{3, 4}};
  for (int n = 0; n < 4; ++n) {
    REQUIRE_FALSE(f.lock(1).failed);
    f.done(ledger::release{key(1), f.build(1, 0, 0), failure::infra, "crashed"});
  }
  REQUIRE(f.lock(1).failed->failure == failure::poisoned);
  f.submit(1);
  f.adopt(1);
  f.acquire(1, 1);
  REQUIRE(f.lock(1).infra_deaths == 0);
}

TEST_CASE("a coordinator's death does not count against what it queued", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.acquire(1);
  f.done(ledger::expire{session(0)});
  REQUIRE(f.lock(1).phase == phase::free);
  REQUIRE(f.lock(1).infra_deaths == 0);
}

TEST_CASE("a token from the future says that the ledger went back", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto token = f.build(1);
  fence future{token.value + 1};
  f.put_blob(1);
  REQUIRE(f.refused(ledger::start{key(1), future, who(1, 7), node(1)}) == ec::ledger_regressed);
  REQUIRE(f.refused(ledger::release{key(1), future, failure::infra, ""}) == ec::ledger_regressed);
  REQUIRE(f.refused(ledger::partial{key(1), future}) == ec::ledger_regressed);
  REQUIRE(f.refused(f.committing(1, future)) == ec::ledger_regressed);
  REQUIRE(f.refused(ledger::fail_attempt{key(1), future, failure::oom, "", ""}) == ec::ledger_regressed);
  REQUIRE(f.refused(ledger::release{key(2), {1}, failure::infra, ""}) == ec::ledger_regressed);
}

TEST_CASE("held locks are told by session", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.acquire(1);
  f.build(2);
  f.done(ledger::partial{key(3), f.build(3)});
  f.realise(4);
  auto held = [&](session_id s) {
    std::vector<inhash> keys;
    for (auto& row : f.ask<ledger::lock_states>(ledger::held_locks{s}).rows)
      keys.push_back(row.key);
    return keys;
  };
  REQUIRE(held(session(0)) == std::vector{key(1)});
  REQUIRE(held(session(1)) == std::vector{key(2), key(3)});
  REQUIRE(held({}) == std::vector{key(1), key(2), key(3)});
}

TEST_CASE("held locks come in pages, each once whatever is let go meanwhile", "[ledger]") {
  farm f{EVERY_LEDGER};
  std::vector<fence> tokens;
  for (unsigned k = 1; k <= 5; ++k)
    tokens.push_back(k < 3 ? f.acquire(k) : f.build(k));
  auto page = [&](ledger::held_locks q) { return f.ask<ledger::lock_states>(q).rows; };
  std::vector<inhash> seen;
  ledger::held_locks q{{}, 2};
  for (auto rows = page(q); !rows.empty(); rows = page(q)) {
    REQUIRE(rows.size() <= 2);
    for (auto& row : rows)
      seen.push_back(row.key);
    std::tie(q.after_session, q.after) = std::tie(rows.back().holder.session, rows.back().key);
    if (seen.size() == 4) f.done(ledger::release{key(1), tokens[0], failure::cancelled, ""});
  }
  std::sort(seen.begin(), seen.end());
  REQUIRE(seen == std::vector{key(1), key(2), key(3), key(4), key(5)});
  REQUIRE(page({session(1), 2, session(1), key(3)}).size() == 2);
  REQUIRE(page({session(1), 2, session(1), key(5)}).empty());
}

TEST_CASE("failures come in pages, also those of one moment and those that do not count", "[ledger]") {
  farm f{EVERY_LEDGER, twice_in_a_minute};
  for (unsigned k = 1; k <= 7; ++k)
    f.done(ledger::fail_attempt{key(k), f.build(k), k == 7 ? failure::timed_out : failure::build_failed, "exit 1", ""});
  f.now_ms += 10;
  f.submit(5);
  f.adopt(5);
  f.done(ledger::fail_attempt{key(3), f.build(3, 5), failure::build_failed, "exit 1", ""});
  std::vector<inhash> seen;
  ledger::read_failures q{{}, 3};
  for (;;) {
    auto rows = f.ask<ledger::failure_rows>(q).rows;
    for (auto& row : rows)
      seen.push_back(row.key);
    if (rows.size() < 3) break;
    std::tie(q.before_ms, q.after) = std::tie(rows.back().last_ms, rows.back().key);
  }
  REQUIRE(seen.front() == key(3));
  REQUIRE(std::set(seen.begin(), seen.end()).size() == 7);
  REQUIRE(seen.size() == 7);
}

TEST_CASE("attempts that started in one moment come on both sides of a page's end", "[ledger]") {
  farm f{EVERY_LEDGER};
  for (unsigned k = 1; k <= 5; ++k)
    f.build(k);
  std::set<inhash> seen;
  ledger::read_attempts q{{}, {}, 0, 2};
  for (;;) {
    auto rows = f.ask<ledger::attempt_rows>(q).rows;
    for (auto& row : rows)
      REQUIRE(seen.insert(row.key).second);
    if (rows.size() < 2) break;
    std::tie(q.before_ms, q.before_key, q.before_token) =
        std::tie(rows.back().started_ms, rows.back().key, rows.back().token);
  }
  REQUIRE(seen.size() == 5);
}

TEST_CASE("an inhash never heard of is free, and rows come in the order asked", "[ledger]") {
  farm f{EVERY_LEDGER};
  f.acquire(1);
  auto rows = f.ask<ledger::lock_states>(ledger::read_locks{{key(9), key(1)}}).rows;
  REQUIRE(rows.size() == 2);
  REQUIRE(rows[0].key == key(9));
  REQUIRE(rows[0].token == fence{});
  REQUIRE(rows[1].phase == phase::queued);
}

TEST_CASE("the history comes newest first, by inhash or derivation, in pages", "[ledger]") {
  farm f{EVERY_LEDGER};
  for (unsigned n = 0; n < 6; ++n) {
    f.now_ms += 10;
    f.done(ledger::release{key(n % 2), f.build(n % 2), failure::store_down, std::to_string(n)});
  }
  auto reasons = [&](ledger::read_attempts q) {
    std::string text;
    for (auto& row : f.ask<ledger::attempt_rows>(q).rows)
      text += row.reason;
    return text;
  };
  REQUIRE(reasons({{}, {}, 0, 100}) == "543210");
  REQUIRE(reasons({{}, {}, 0, 2}) == "54");
  REQUIRE(reasons({{}, {}, 1'000'050, 2}) == "32");
  REQUIRE(reasons({key(1), {}, 0, 100}) == "531");
  REQUIRE(reasons({{}, drv(0), 0, 2}) == "42");
  REQUIRE(reasons({key(0), drv(1), 0, 100}) == "");
}

TEST_CASE("how long builds of a name took is the median of the last successes, whatever their versions", "[ledger]") {
  farm f{EVERY_LEDGER};
  auto drv_named = [](const std::string& name) { return path(name + ".drv"); };
  unsigned k = 0;
  auto attempt = [&](const std::string& name, std::int64_t ms, bool succeeds) {
    ++k;
    auto granted = f.ask<ledger::granted>(ledger::acquire{key(k), drv_named(name), request(0), {1}, who(0, k)});
    auto started = f.ask<ledger::granted>(ledger::start{key(k), granted.token, who(0, 100 + k), node(0)});
    f.now_ms += ms;
    if (succeeds)
      f.commit(k, started.token);
    else
      f.done(ledger::fail_attempt{key(k), started.token, failure::build_failed, "", ""});
  };
  attempt("zlib-1.2", 9'000, true); // too old to count
  for (std::int64_t ms : {10, 50, 20, 40, 30}) attempt("zlib-1.3." + std::to_string(ms), ms, true);
  attempt("zlib-1.4", 7'000, false);
  attempt("zlib-docs", 70, true);
  REQUIRE(f.ask<ledger::durations>(ledger::read_durations{{"zlib", "zlib-docs", "hello"}}).ms ==
          std::vector<std::int64_t>{30, 70, 0});
}
