#include "actors/build/attempt.hpp"
#include "tests/support/seed.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace coppice;
using namespace coppice::actors;
using stage = attempt::stage;

namespace {

std::string name_of(const attempt::effect& e) {
  static constexpr const char* names[] = {"fetch",   "start",   "run",       "kill",    "pack",
                                          "keep",    "store",   "commit",    "partial", "fail",
                                          "release", "reclaim", "free_slot", "discard", "end",     "extend"};
  return names[e.index()];
}

std::vector<realised_output> outputs(std::uint64_t gen = 0) {
  realised_output o;
  o.name = "out";
  o.info.gen = {gen};
  return {o};
}

ledger::lock_state row(std::uint64_t token, ledger::phase p = ledger::phase::free) {
  ledger::lock_state r;
  r.token = {token};
  r.phase = p;
  return r;
}

/// The node's lease in its first opening, or a later one.
lease_term in_term(std::uint64_t n, std::int64_t until_ms = 1'000) {
  return {n, until_ms};
}

build_exit success() {
  return {};
}
build_exit failed(failure kind = failure::build_failed) {
  build_exit e;
  e.failure = kind;
  e.reason = "it broke";
  return e;
}
error lost() {
  return {ec::restarted, "the lock manager died"};
}
error stale() {
  return {ec::stale, "another token"};
}

/// An attempt under the coordinator's token 7, and in words what it said last.
struct life {
  attempt a{fence{7}};
  attempt::effects last;

  life& operator()(attempt::effects e) {
    last = std::move(e);
    return *this;
  }
  std::vector<std::string> said() const {
    std::vector<std::string> names;
    for (auto& e : last)
      names.push_back(name_of(e));
    return names;
  }
  template <class T>
  T one() const {
    for (auto& e : last)
      if (auto* x = std::get_if<T>(&e)) return *x;
    throw std::logic_error("it did not say that");
  }
  /// Goes on to this stage, by the straight way.
  life& to(stage s) {
    (*this)(a.begin());
    if (s == stage::fetching) return *this;
    (*this)(a.on_fetched());
    if (s == stage::starting) return *this;
    (*this)(a.on_token({8}, in_term(1)));
    if (s == stage::building) return *this;
    if (s == stage::failing) return (*this)(a.on_exited(failed(), "tail"));
    (*this)(a.on_exited(success(), {}));
    if (s == stage::packing) return *this;
    if (s == stage::releasing) return (*this)(a.on_rejected(failure::infra, "the disk"));
    (*this)(a.on_packed(outputs()));
    if (s == stage::keeping) return *this;
    (*this)(a.on_kept());
    if (s == stage::storing) return *this;
    (*this)(a.on_stored(outputs(1)));
    if (s == stage::committing) return *this;
    return (*this)(a.on_refused(stale())); // reclaiming
  }
};

using words = std::vector<std::string>;

const words the_end{"free_slot", "discard", "end"};
const words the_late_end{"discard", "end"}; // the slot is free since the outputs were kept

} // namespace

TEST_CASE("outputs that wait for the store are dropped under their token, and the lock is given back") {
  life l;
  l.to(stage::storing);
  CHECK_FALSE(l.a.may_drop({7}));
  CHECK_FALSE(l.a.may_drop({9}));
  REQUIRE(l.a.may_drop({8}));
  l(l.a.on_dropped("an operator"));
  CHECK(l.one<attempt::release>().token == fence{8});
  CHECK(l.one<attempt::release>().why == failure::cancelled);
  CHECK(l(l.a.on_stored(outputs(1))).said().empty()); // too late
  l(l.a.on_settled());
  CHECK(l.said() == the_late_end);
  CHECK_FALSE(l.one<attempt::discard>().committed);
}

TEST_CASE("outputs whose token is lost are dropped without a word to the ledger") {
  life l;
  l.to(stage::reclaiming);
  CHECK_FALSE(l.a.may_drop({7}));
  REQUIRE(l.a.may_drop({9}));
  CHECK(l(l.a.on_dropped("an operator")).said() == the_late_end);
}

TEST_CASE("nothing is dropped before it is built or once it is being committed") {
  for (auto s : {stage::building, stage::packing, stage::keeping, stage::committing, stage::failing}) {
    life l;
    l.to(s);
    CHECK_FALSE(l.a.may_drop({8}));
  }
}

TEST_CASE("an attempt that goes well fetches, starts, runs, packs, keeps, stores, commits and ends") {
  life l;
  CHECK(l(l.a.begin()).said() == words{"fetch"});
  CHECK(l(l.a.on_fetched()).said() == words{"start"});
  CHECK(l.one<attempt::start>().token == fence{7});
  CHECK(l(l.a.on_token({8}, in_term(1))).said() == words{"run"});
  CHECK(l(l.a.on_exited(success(), {})).said() == words{"pack"});
  CHECK(l(l.a.on_packed(outputs())).said() == words{"keep"});
  CHECK(l(l.a.on_kept()).said() == words{"free_slot", "store"});
  CHECK(l(l.a.on_stored(outputs(3))).said() == words{"commit"});
  CHECK(l.one<attempt::commit>().token == fence{8});
  CHECK(l.one<attempt::commit>().outputs == outputs(3));
  CHECK(l(l.a.on_settled()).said() == the_late_end);
  CHECK(l.one<attempt::discard>().committed);
  CHECK(l.a.at() == stage::over);
}

TEST_CASE("a failed build is told with its reason and log, and ends") {
  life l;
  l.to(stage::failing);
  auto f = l.one<attempt::fail>();
  CHECK(f.token == fence{8});
  CHECK(f.kind == failure::build_failed);
  CHECK(f.reason == "it broke");
  CHECK(f.log_tail == "tail");
  CHECK(l(l.a.on_settled()).said() == the_end);
  CHECK_FALSE(l.one<attempt::discard>().committed);
}

TEST_CASE("inputs that no store has are told at once, all of them, under a token of the attempt's own") {
  life l;
  l.to(stage::fetching);
  auto libc = *nix::store_path::from_base_name("00000000000000000000000000000000-libc");
  auto gmp = *nix::store_path::from_base_name("11111111111111111111111111111111-gmp");
  CHECK(l(l.a.on_missing({libc, gmp}, "it was lost")).said() == words{"start"});
  CHECK(l(l.a.on_token({8}, in_term(1))).said() == words{"fail"});
  auto f = l.one<attempt::fail>();
  CHECK(f.kind == failure::inputs_missing);
  CHECK(f.missing == std::vector{libc, gmp});
  CHECK(f.reason.find("-libc is missing: it was lost; and so are 1 more") != std::string::npos);
  CHECK(l(l.a.on_settled()).said() == the_end);
}

TEST_CASE("an attempt that only compares keeps and stores nothing, and commits what is registered") {
  life l;
  l.a = attempt{fence{7}, true};
  l.to(stage::packing);
  CHECK(l(l.a.on_same(outputs(3))).said() == words{"commit"});
  CHECK(l.one<attempt::commit>().outputs == outputs(3));
  SECTION("taken") { CHECK(l(l.a.on_settled()).said() == the_end); }
  SECTION("its token is old: nothing is reclaimed") { CHECK(l(l.a.on_refused(stale())).said() == the_end); }
  SECTION("what is registered is gone meanwhile: nothing is uploaded in its place") {
    CHECK(l(l.a.on_refused({ec::upload_again, "gone"})).said() == words{"fail"});
    CHECK(is_transient(l.one<attempt::fail>().kind));
  }
}

TEST_CASE("an attempt that compares and came out different fails") {
  life l;
  l.a = attempt{fence{7}, true};
  l.to(stage::packing);
  CHECK(l(l.a.on_rejected(failure::not_deterministic, "differs")).said() == words{"fail"});
  CHECK(l(l.a.on_settled()).said() == the_end);
}

TEST_CASE("a stage whose answer was lost says its order again at the next tick, once") {
  auto at = GENERATE(stage::starting, stage::committing, stage::failing, stage::releasing, stage::reclaiming);
  CAPTURE(attempt::to_string(at));
  life l;
  auto order = l.to(at).said();
  CHECK(l(l.a.on_tick()).said().empty());
  CHECK(l(l.a.on_refused(lost())).said().empty());
  CHECK(l.a.at() == at);
  CHECK(l(l.a.on_tick()).said() == order);
  CHECK(l(l.a.on_tick()).said().empty());
}

TEST_CASE("a session that is over is waited for: SESSION opens it again") {
  life l;
  l.to(stage::reclaiming);
  CHECK(l(l.a.on_refused({ec::session_over, ""})).said().empty());
  CHECK(l(l.a.on_tick()).said() == words{"reclaim"});
}

TEST_CASE("a stale token ends an attempt that has no outputs, without another word to the ledger") {
  auto at = GENERATE(stage::starting, stage::failing, stage::releasing);
  CAPTURE(attempt::to_string(at));
  life l;
  l.to(at);
  CHECK(l(l.a.on_refused(stale())).said() == the_end);
}

TEST_CASE("a stale token with the output in hand is reclaimed, and the new one commits") {
  life l;
  l.to(stage::committing);
  CHECK(l(l.a.on_refused(stale())).said() == words{"reclaim"});
  CHECK(l(l.a.on_token({20}, in_term(1))).said() == words{"store"});
  CHECK(l(l.a.on_stored(outputs(1))).said() == words{"commit"});
  CHECK(l.one<attempt::commit>().token == fence{20});
}

TEST_CASE("outputs that cannot be reclaimed are discarded: another build counts") {
  life l;
  l.to(stage::reclaiming);
  CHECK(l(l.a.on_refused(stale())).said() == the_late_end);
  CHECK_FALSE(l.one<attempt::discard>().committed);
}

TEST_CASE("a cancel ends an attempt that has nothing yet, or nothing kept") {
  auto at = GENERATE(stage::fetching, stage::packing, stage::failing, stage::releasing);
  CAPTURE(attempt::to_string(at));
  life l;
  l.to(at);
  CHECK(l(l.a.on_row(row(9))).said() == the_end);
}

TEST_CASE("a cancel kills the builder once; its exit ends the attempt, whatever it says") {
  life l;
  l.to(stage::building);
  CHECK(l(l.a.on_row(row(9))).said() == words{"kill"});
  CHECK(l(l.a.on_row(row(9))).said().empty());
  CHECK(l(l.a.on_exited(GENERATE(success(), failed(failure::cancelled)), {})).said() == the_end);
}

TEST_CASE("a cancel while the output is in hand asks for the token again") {
  auto at = GENERATE(stage::storing, stage::committing);
  life l;
  l.to(at);
  CHECK(l(l.a.on_row(row(9))).said() == words{"reclaim"});
}

TEST_CASE("a cancel while outputs are registered waits for the commit to tell") {
  life l;
  l.to(stage::keeping);
  CHECK(l(l.a.on_row(row(9))).said().empty());
  CHECK(l(l.a.on_kept()).said() == words{"free_slot", "store"});
}

TEST_CASE("a machine that stops gives its build back, which counts against nobody") {
  life l;
  SECTION("before it began: the lock is the coordinator's") {
    l.to(stage::fetching);
    CHECK(l(l.a.on_stop("stopped")).said() == the_end);
  }
  SECTION("while its token is asked for") {
    l.to(stage::starting);
    CHECK(l(l.a.on_stop("stopped")).said().empty());
    CHECK(l(l.a.on_token({8}, in_term(1))).said() == words{"release"});
  }
  SECTION("while it runs, or its lock is asked for again") {
    l.to(stage::building);
    const bool resumes = GENERATE(false, true);
    if (resumes) CHECK(l(l.a.on_lease(in_term(2))).said() == words{"reclaim"});
    CHECK(l(l.a.on_stop("stopped")).said() == words{"kill"});
    CHECK(l(l.a.on_stop("stopped")).said().empty());
    if (resumes) CHECK(l(l.a.on_exited(failed(failure::cancelled), {})).said().empty());
    CHECK(l(resumes ? l.a.on_token({8}, in_term(2)) : l.a.on_exited(failed(failure::cancelled), {})).said() ==
          words{"release"});
    auto& given = std::get<attempt::release>(l.last.front());
    CHECK((given.token == fence{8} && given.why == failure::cancelled && given.reason == "stopped"));
    CHECK(l(l.a.on_settled()).said() == the_end);
  }
  SECTION("unless its lock is lost: then there is nothing to be given back") {
    l.to(stage::building)(l.a.on_lease(in_term(2)))(l.a.on_stop("stopped"));
    CHECK(l(l.a.on_refused(stale())).said().empty());
    CHECK(l(l.a.on_exited(failed(failure::cancelled), {})).said() == the_end);
  }
  SECTION("unless it ended by itself first") {
    l.to(stage::building)(l.a.on_stop("stopped"));
    const bool good = GENERATE(true, false);
    CHECK(l(l.a.on_exited(good ? success() : failed(), {})).said() == words{good ? "pack" : "fail"});
  }
  SECTION("what is built goes on") {
    l.to(stage::packing);
    CHECK(l(l.a.on_stop("stopped")).said().empty());
    CHECK(l(l.a.on_packed(outputs())).said() == words{"keep"});
  }
}

TEST_CASE("a row under its own or an older token says nothing") {
  auto at = GENERATE(stage::fetching, stage::starting, stage::building, stage::packing, stage::keeping, stage::storing,
                     stage::committing, stage::failing, stage::releasing, stage::reclaiming);
  life l;
  l.to(at);
  CHECK(l(l.a.on_row(row(l.a.token().value, ledger::phase::building))).said().empty());
  CHECK(l(l.a.on_row(row(1))).said().empty());
  CHECK(l.a.at() == at);
}

TEST_CASE("a builder is extended with the lease under which its token was got, and not by one that never was") {
  life l;
  l.to(stage::building);
  CHECK(l.a.lease() == in_term(1));
  CHECK(l(l.a.on_lease(in_term(1, 5'000))).said() == words{"extend"});
  CHECK(l.one<attempt::extend>().until_ms == 5'000);
  CHECK(l(l.a.on_lease({})).said().empty());
  CHECK(l.a.lease() == in_term(1, 5'000));
}

TEST_CASE("after the session was opened anew the lock is asked for, and nothing extended before") {
  life l;
  l.to(stage::building);
  CHECK(l(l.a.on_lease(in_term(2, 9'000))).said() == words{"reclaim"});
  CHECK_FALSE(l.one<attempt::reclaim>().built);
  CHECK(l(l.a.on_lease(in_term(2, 9'500))).said().empty());
  SECTION("granted: the builder goes on") {
    CHECK(l(l.a.on_token({12}, in_term(2, 9'000))).one<attempt::extend>().until_ms == 9'000);
    CHECK(l.a.token() == fence{12});
    CHECK(l(l.a.on_lease(in_term(2, 12'000))).said() == words{"extend"});
    CHECK(l(l.a.on_exited(success(), {})).said() == words{"pack"});
  }
  SECTION("the answer is lost: asked again") {
    CHECK(l(l.a.on_refused(lost())).said().empty());
    CHECK(l(l.a.on_tick()).said() == words{"reclaim"});
  }
  SECTION("refused: the builder is killed") {
    CHECK(l(l.a.on_refused(stale())).said() == words{"kill"});
    CHECK(l(l.a.on_lease(in_term(2, 12'000))).said().empty());
    CHECK(l(l.a.on_exited(success(), {})).said() == the_end);
  }
}

TEST_CASE("a builder that ends while its lock is asked for waits for the answer") {
  life l;
  l.to(stage::building);
  l(l.a.on_lease(in_term(2)));
  const bool well = GENERATE(true, false);
  CHECK(l(l.a.on_exited(well ? success() : failed(), "tail")).said().empty());
  SECTION("granted") {
    CHECK(l(l.a.on_token({12}, in_term(2))).said() == words{well ? "pack" : "fail"});
    if (!well) CHECK(l.one<attempt::fail>().token == fence{12});
    if (!well) CHECK(l.one<attempt::fail>().log_tail == "tail");
  }
  SECTION("refused: another build counts") { CHECK(l(l.a.on_refused(stale())).said() == the_end); }
}

TEST_CASE("a builder whose lock expired asks for it, also when somebody waits for it; what comes meanwhile changes nothing") {
  life l;
  l.to(stage::building);
  CHECK(l(l.a.on_row(GENERATE(row(8), row(9, ledger::phase::queued)))).said() == words{"reclaim"});
  CHECK(l(l.a.on_row(row(10, ledger::phase::building))).said().empty()); // perhaps its own
  CHECK(l(l.a.on_token({10}, in_term(1))).said() == words{"extend"});
  CHECK(l(l.a.on_row(row(10, ledger::phase::building))).said().empty());
  CHECK(l(l.a.on_row(row(11, ledger::phase::building))).said() == words{"kill"});
}

TEST_CASE("outputs whose lock expired are packed on: the commit will tell") {
  life l;
  l.to(stage::packing);
  CHECK(l(l.a.on_row(GENERATE(row(8), row(9, ledger::phase::queued)))).said().empty());
  CHECK(l(l.a.on_row(row(10, ledger::phase::building))).said() == the_end);
}

TEST_CASE("a commit whose blob was collected meanwhile puts it again") {
  life l;
  l.to(stage::committing);
  CHECK(l(l.a.on_refused({ec::upload_again, ""})).said() == words{"store"});
  CHECK(l(l.a.on_stored(outputs(2))).one<attempt::commit>().outputs == outputs(2));
}

TEST_CASE("a store that fails makes the attempt partial, once, and the upload goes on") {
  life l;
  l.to(stage::storing);
  CHECK(l(l.a.on_store_failed()).said() == words{"partial"});
  CHECK(l.one<attempt::partial>().token == fence{8});
  CHECK(l(l.a.on_store_failed()).said().empty());
  CHECK(l(l.a.on_stored(outputs(1))).said() == words{"commit"});
}

TEST_CASE("outputs that contradict what is committed fail for good") {
  auto code = GENERATE(ec::conflict, ec::invalid);
  life l;
  l.to(stage::committing);
  l(l.a.on_refused({code, "known with other contents"}));
  CHECK(l.one<attempt::fail>().kind == failure::output_rejected);
  CHECK(l(l.a.on_settled()).said() == the_late_end);
}

TEST_CASE("outputs that break a rule fail; trouble of the machine releases") {
  life bad;
  bad.to(stage::packing);
  CHECK(bad(bad.a.on_rejected(failure::hash_mismatch, "")).said() == words{"fail"});
  life unlucky;
  unlucky.to(stage::keeping);
  CHECK(unlucky(unlucky.a.on_rejected(failure::infra, "")).said() == words{"release"});
}

TEST_CASE("an upload that could not be begun is begun again: what is kept is good") {
  life l;
  l.to(stage::storing);
  CHECK(l(l.a.on_rejected(failure::infra, "the supervisor is restarting")).said().empty());
  CHECK(l.a.at() == stage::storing);
  CHECK(l(l.a.on_tick()).said() == words{"store"});
}

TEST_CASE("inputs are fetched again a few times, then the attempt fails under a token of its own") {
  life l;
  l.to(stage::fetching);
  for (unsigned i = 1; i < attempt::fetches_max; ++i) {
    CHECK(l(l.a.on_fetch_failed({ec::missing, "gone"})).said().empty());
    CHECK(l(l.a.on_tick()).said() == words{"fetch"});
  }
  CHECK(l(l.a.on_fetch_failed({ec::missing, "gone"})).said() == words{"start"});
  l(l.a.on_token({8}, in_term(1)));
  CHECK(l.one<attempt::fail>().token == fence{8});
  CHECK(l.one<attempt::fail>().kind == failure::infra);
  CHECK(l.one<attempt::fail>().reason == "cannot fetch the inputs: gone");
}

TEST_CASE("kept outputs of an earlier process are reclaimed, stored and committed, and take no slot") {
  life l;
  l.a = attempt{fence{5}, outputs(1)};
  CHECK(l(l.a.begin()).said() == words{"reclaim"});
  CHECK(l(l.a.on_token({6}, in_term(1))).said() == words{"store"});
  CHECK(l(l.a.on_stored(outputs(1))).said() == words{"commit"});
  CHECK(l.one<attempt::commit>().token == fence{6});
  CHECK(l(l.a.on_settled()).said() == the_late_end);
}

TEST_CASE("a late refusal does not end a stage that asks for nothing") {
  auto at = GENERATE(stage::fetching, stage::building, stage::packing, stage::keeping, stage::storing);
  life l;
  l.to(at);
  CHECK(l(l.a.on_refused(stale())).said().empty());
  CHECK(l(l.a.on_refused(lost())).said().empty());
  CHECK(l(l.a.on_tick()).said().empty());
  CHECK(l.a.at() == at);
}

TEST_CASE("any events in any order: the builder runs at most once, the slot is freed once, there is one end") {
  auto base = test::seed_or(1);
  for (auto seed = base; seed < base + 2'000; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random{seed};
    bool kept = random() % 5 == 0;
    auto a = kept ? attempt{fence{7}, outputs()} : attempt{fence{7}};
    std::map<std::string, int> said;
    bool over = false;
    std::uint64_t token = 7;
    auto take = [&](const attempt::effects& effects) {
      for (auto& e : effects) {
        REQUIRE_FALSE(over); // nothing after the end
        ++said[name_of(e)];
        over = name_of(e) == "end";
      }
      REQUIRE(said["run"] <= 1);
      REQUIRE(said["kill"] <= 1);
      REQUIRE(said["partial"] <= 1);
      REQUIRE(said["free_slot"] <= 1);
      REQUIRE(said["discard"] <= 1);
      REQUIRE(said["end"] <= 1);
      if (said["kill"] > 0) REQUIRE(said["run"] == 1);
      if (said["commit"] > 0 && !kept) REQUIRE(said["keep"] > 0); // INV-12
      REQUIRE(over == (a.at() == stage::over));
    };
    auto any_error = [&]() -> error {
      static constexpr ec codes[] = {
          ec::stale,   ec::session_over, ec::not_owner, ec::not_found, ec::ledger_regressed, ec::conflict,
          ec::invalid, ec::upload_again, ec::restarted, ec::deadline,  ec::overloaded,       ec::unavailable};
      return {codes[random() % std::size(codes)], "x"};
    };
    take(a.begin());
    for (int i = 0; i < 60; ++i) {
      switch (random() % 16) {
      case 0: take(a.on_fetched()); break;
      case 1: take(a.on_fetch_failed(any_error())); break;
      case 2: take(a.on_token({++token}, in_term(1))); break;
      case 3: take(a.on_exited(random() % 2 ? success() : failed(), {})); break;
      case 4: take(a.on_packed(outputs())); break;
      case 5: take(a.on_rejected(random() % 2 ? failure::infra : failure::output_rejected, "x")); break;
      case 6: take(a.on_kept()); break;
      case 7: take(a.on_stored(outputs(random() % 3))); break;
      case 8: take(a.on_store_failed()); break;
      case 9: take(a.on_settled()); break;
      case 10: take(a.on_refused(any_error())); break;
      case 11:
        take(a.on_row(row(token + random() % 3, random() % 2 ? ledger::phase::free : ledger::phase::queued)));
        break;
      case 12: take(a.on_lease(in_term(random() % 3))); break;
      case 13: take(a.on_stop("stopped")); break;
      default: take(a.on_tick()); break;
      }
    }
    // then each order is carried out
    for (int i = 0; i < 100 && !over; ++i)
      switch (a.at()) {
      case stage::fetching: take(a.on_fetched()); break;
      case stage::starting:
      case stage::resuming:
      case stage::reclaiming: take(a.on_token({++token}, in_term(1))); break;
      case stage::building: take(a.on_exited(success(), {})); break;
      case stage::packing: take(a.on_packed(outputs())); break;
      case stage::keeping: take(a.on_kept()); break;
      case stage::storing: take(a.on_stored(outputs(1))); break;
      case stage::committing:
      case stage::failing:
      case stage::releasing: take(a.on_settled()); break;
      case stage::over: break;
      }
    CHECK(said["end"] == 1);
    CHECK(said["discard"] == 1);
    CHECK(said["free_slot"] == (kept ? 0 : 1));
  }
}
