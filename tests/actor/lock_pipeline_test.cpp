#include "actors/build/worker_pool.hpp"
#include "actors/lock/lock_manager.hpp"
#include "actors/lock/session.hpp"
#include "actors/plan/graph_keeper.hpp"
#include "store/ledger.hpp"
#include "tests/support/world.hpp"

#include <catch2/catch.hpp>
#include <unistd.h>

#include <filesystem>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;
using ledger::phase;

namespace {

/// LEDGER without its thread: the backend outlives it, as a disk does.
class plain_ledger {
public:
  using interface = ledger_actor;
  static constexpr const char* name = "ledger";

  plain_ledger(rt::self<interface>* self, std::shared_ptr<store::ledger_backend> backend, lock_manager_actor locks,
               graph_keeper_actor graphs)
      : self_(self), backend_(std::move(backend)), locks_(std::move(locks)), graphs_(std::move(graphs)) {}
  interface::behavior_type make_behavior() {
    return {
        [this](atom::transact_atom, ledger::transaction& t) -> caf::result<ledger::answer> {
          ledger::changed changes;
          ledger::any_transaction batch[] = {std::move(t.body)};
          auto answers = backend_->run(batch, 0, changes);
          if (!changes.locks.empty()) self_->send(locks_, atom::changed_v, changes);
          if (graphs_ && !changes.requests.empty()) self_->send(graphs_, atom::changed_v, changes);
          if (!answers[0]) return make_error(answers[0].error());
          return ledger::answer{std::move(*answers[0])};
        },
        [](atom::done_atom) {},
        [](atom::tick_atom) {},
    };
  }

private:
  rt::self<interface>* self_;
  std::shared_ptr<store::ledger_backend> backend_;
  lock_manager_actor locks_;
  graph_keeper_actor graphs_;
};

using rows = std::shared_ptr<std::vector<ledger::lock_state>>;

/// Hears of changed rows.
class watcher {
public:
  using interface = lock_watcher_actor;
  static constexpr const char* name = "watcher";
  watcher(rt::self<interface>*, rows heard) : heard_(std::move(heard)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::changed_atom, const ledger::lock_state& row) { heard_->push_back(row); }};
  }

private:
  rows heard_;
};

template <class Id>
Id id_of(std::uint8_t n) {
  Id id;
  id.bytes[0] = n;
  return id;
}

const nix::store_path drv = *nix::store_path::from_base_name("00000000000000000000000000000000-hello.drv");
const auto key = id_of<inhash>(1);

/// LEDGER, SESSION and LOCK_MANAGER under their supervisor, and two open requests.
struct farm {
  test::world w;
  session_info me{{"oak"}, id_of<session_id>(7), {1}};
  std::shared_ptr<store::ledger_backend> backend{store::open_memory_ledger()};
  rt::tree tree{w.directory, "/oak", [] {
                  rt::supervisor_options o;
                  o.how = rt::strategy::rest_for_one;
                  o.restarts.max_restarts = 1'000;
                  return o;
                }()};
  lock_manager_actor locks = tree.forward<lock_manager_actor>("locks");
  graph_keeper_actor keeper;
  ledger_actor ledger_ = tree.child<plain_ledger>("ledger", backend, locks, keeper);
  session_actor session = tree.child<session_state>("session", session_state::config{me, {}, &w.clock}, ledger_);
  epoch first{}, second{};

  farm() {
    tree.child<lock_manager_state>("locks", ledger_, session);
    w.run(tree);
    REQUIRE(w.ask(session, atom::get_v)->session == me.session);
    first = open(id_of<request_id>(1));
    second = open(id_of<request_id>(2));
  }
  /// Asks the ledger, again if it died meanwhile (R2).
  template <class T, class Tx>
  expected<T> run(Tx tx) {
    for (;;) {
      auto a = w.ask(ledger_, atom::transact_v, ledger::transaction{tx});
      if (a) return std::get<T>(a->body);
      if (a.error().code != ec::restarted && a.error().code != ec::unavailable) return tl::unexpected(a.error());
    }
  }
  epoch open(const request_id& id) {
    run<ledger::request_row>(ledger::submit{id, "me", {}});
    return run<ledger::owned>(ledger::adopt{id, me.session})->epoch;
  }
  lock_watcher_actor watch_with(rows heard) { return w.spawn<watcher>(std::move(heard)); }
  acquire_lock ask_for(std::uint8_t request) {
    return {key, drv, id_of<request_id>(request), request == 1 ? first : second, id_of<nonce>(request)};
  }
  expected<ledger::any_answer> acquire(std::uint8_t request, const lock_watcher_actor& by) {
    auto a = w.ask(locks, atom::acquire_v, ask_for(request), by);
    if (!a) return tl::unexpected(a.error());
    return a->body;
  }
  fence granted(std::uint8_t request, const lock_watcher_actor& by) {
    return std::get<ledger::granted>(*acquire(request, by)).token;
  }
  ledger::lock_state row() { return run<ledger::lock_states>(ledger::read_locks{{key}})->rows[0]; }
  void release(fence token) {
    REQUIRE(w.ask(locks, atom::release_v, ledger::release{key, token, failure::cancelled, "test"}));
  }
};

rows none() {
  return std::make_shared<std::vector<ledger::lock_state>>();
}

} // namespace

TEST_CASE("a lock is granted, and the second asker waits and hears when it is free") {
  farm f;
  auto heard = none();
  auto first = f.watch_with(none()), second = f.watch_with(heard);
  auto token = f.granted(1, first);
  auto held = *f.acquire(2, second);
  CHECK(std::get<ledger::lock_state>(held).phase == phase::queued);
  CHECK(std::get<ledger::lock_state>(held).holder.nonce == id_of<nonce>(1));
  f.w.settle();
  CHECK(heard->empty());
  f.release(token);
  f.w.settle();
  REQUIRE(heard->size() == 1);
  CHECK(heard->at(0).phase == phase::free);
  CHECK(f.granted(2, second) > token); // INV-7
}

TEST_CASE("each message said twice is answered as once") {
  farm f;
  auto by = f.watch_with(none());
  auto token = f.granted(1, by);
  CHECK(f.granted(1, by) == token);
  start_attempt start{key, token, id_of<nonce>(9)};
  auto mine = f.w.ask(f.locks, atom::start_v, start, by)->token;
  CHECK(mine > token);
  CHECK(f.w.ask(f.locks, atom::start_v, start, by)->token == mine);
  CHECK(f.w.ask(f.locks, atom::partial_v, ledger::partial{key, mine}));
  CHECK(f.w.ask(f.locks, atom::partial_v, ledger::partial{key, mine}));
  f.release(mine);
  f.release(mine);
  reclaim_lock reclaim{key, drv, id_of<nonce>(9), true};
  auto again = f.w.ask(f.locks, atom::reclaim_v, reclaim, by)->token;
  CHECK(f.w.ask(f.locks, atom::reclaim_v, reclaim, by)->token == again);
  ledger::fail_attempt fail{key, again, failure::build_failed, "it broke", ""};
  CHECK(f.w.ask(f.locks, atom::fail_v, fail));
  auto after = f.row();
  CHECK(f.w.ask(f.locks, atom::fail_v, fail));
  CHECK(f.row() == after);
}

TEST_CASE("two workers of one repeated assignment: the second one's start is stale") {
  farm f;
  auto by = f.watch_with(none());
  auto token = f.granted(1, by);
  REQUIRE(f.w.ask(f.locks, atom::start_v, start_attempt{key, token, id_of<nonce>(8)}, by));
  auto late = f.w.ask(f.locks, atom::start_v, start_attempt{key, token, id_of<nonce>(9)}, by);
  REQUIRE_FALSE(late);
  CHECK(late.error().code == ec::stale);
}

TEST_CASE("a lock manager that is killed is restarted, and the next watch tells of changes again") {
  farm f;
  auto heard = none();
  auto first = f.watch_with(none()), second = f.watch_with(heard);
  auto token = f.granted(1, first);
  REQUIRE(f.acquire(2, second));
  REQUIRE(f.w.directory.kill("/oak/locks"));
  f.w.settle();
  auto now = f.w.ask(f.locks, atom::watch_v, std::vector<inhash>{key}, second);
  REQUIRE(now);
  CHECK(now->rows.at(0).phase == phase::queued);
  f.release(token);
  f.w.settle();
  REQUIRE(heard->size() == 1);
  CHECK(heard->at(0).phase == phase::free);
}

TEST_CASE("a watcher that watches twice hears once, and not at all after unwatch or its end") {
  farm f;
  auto heard = none(), unwatching = none();
  auto first = f.watch_with(heard), second = f.watch_with(unwatching), third = f.watch_with(none());
  for (auto& x : {first, first, second, third})
    REQUIRE(f.w.ask(f.locks, atom::watch_v, std::vector<inhash>{key}, x));
  f.w.tell(f.locks, atom::unwatch_v, key, second);
  rt::send_exit(caf::actor_cast<caf::strong_actor_ptr>(third), caf::exit_reason::kill);
  f.w.settle();
  f.granted(1, first);
  f.w.settle();
  CHECK(heard->size() == 1);
  CHECK(unwatching->empty());
}

TEST_CASE("the lock pipeline survives the kill of any of its actors at any moment") {
  auto base = test::seed_or(1);
  for (auto seed = base; seed < base + 25; ++seed) {
    CAPTURE(seed);
    farm f;
    f.w.random.seed(seed);
    auto by = f.watch_with(none());
    fence last{};
    for (int round = 0; round < 8; ++round) {
      auto request = static_cast<std::uint8_t>(1 + round % 2);
      // a caller that asks again until it is answered (R2)
      auto until_granted = [&] {
        for (int tries = 0; tries < 200; ++tries) {
          auto q = f.w.begin(f.locks, atom::acquire_v, f.ask_for(request), by);
          for (auto n = f.w.random() % 12; n > 0; --n)
            f.w.step();
          if (f.w.random() % 2 == 0)
            f.w.directory.kill(std::array{"/oak/ledger", "/oak/session", "/oak/locks"}[f.w.random() % 3]);
          REQUIRE(f.w.run_until([&] { return q.answered(); }, 5min));
          REQUIRE(q.count() == 1);
          if (auto a = q.get()) return std::get<ledger::granted>(a->body).token;
        }
        FAIL("never granted");
        return fence{};
      };
      auto token = until_granted();
      REQUIRE(token.value == last.value + 1); // however often it was asked, one grant
      REQUIRE(f.row().phase == phase::queued);
      while (!f.w.ask(f.locks, atom::release_v, ledger::release{key, token, failure::cancelled, "done"}))
        continue;
      last = token;
    }
  }
}

TEST_CASE("the session is renewed, and opened again after it was over") {
  farm f;
  REQUIRE(f.run<ledger::done>(ledger::expire{f.me.session}));
  CHECK_FALSE(f.run<ledger::done>(ledger::keep_alive{f.me.session}));
  f.w.advance(11s);
  CHECK(f.run<ledger::done>(ledger::keep_alive{f.me.session}));
}

TEST_CASE("the lease ends some time after the last word; one that was opened anew is another") {
  farm f;
  auto now_ms = [&] { return std::chrono::duration_cast<std::chrono::milliseconds>(f.w.clock.now().time_since_epoch()).count(); };
  auto first = *f.w.ask(f.session, atom::lease_v);
  CHECK(first.term > 0);
  CHECK(first.until_ms > now_ms());
  CHECK(first.until_ms < now_ms() + 30'000);
  f.w.advance(20s);
  auto later = *f.w.ask(f.session, atom::lease_v);
  CHECK(later.term == first.term);
  CHECK(later.until_ms >= first.until_ms + 15'000);
  REQUIRE(f.run<ledger::done>(ledger::expire{f.me.session}));
  f.w.advance(11s);
  auto anew = *f.w.ask(f.session, atom::lease_v);
  CHECK(anew.term > first.term);
  CHECK(anew.until_ms > later.until_ms);
  CHECK(f.w.ask(f.session, atom::get_v)->lease == anew);
}

TEST_CASE("a session is renewed at once when its hub is there again, and not more often from then on") {
  farm f;
  f.w.advance(1s);
  const auto before = *f.w.ask(f.session, atom::lease_v);
  f.w.tell(f.session, atom::tick_v);
  f.w.advance(100ms);
  CHECK(f.w.ask(f.session, atom::lease_v)->until_ms >= before.until_ms + 900);
  for (int i = 0; i < 50; ++i) {
    f.w.tell(f.session, atom::tick_v);
    f.w.advance(100ms);
  }
  f.w.advance(5s);
  const auto handled = f.w.status("/oak/session").handled;
  f.w.advance(30s);
  CHECK(f.w.status("/oak/session").handled <= handled + 14); // each renewal and its answer
  CHECK(f.w.ask(f.session, atom::lease_v)->until_ms >= before.until_ms + 35'000);
}

TEST_CASE("a process that keeps the ledger need not fear for its lease") {
  farm f;
  auto own = f.w.spawn<session_state>(session_state::config{f.me, {}, &f.w.clock, true}, f.ledger_);
  REQUIRE(f.w.ask(own, atom::get_v));
  CHECK(f.w.ask(own, atom::lease_v)->until_ms == lease_forever);
}

TEST_CASE("what is granted comes with the lease as it was before") {
  farm f;
  auto by = f.watch_with(none());
  auto before = *f.w.ask(f.session, atom::lease_v);
  auto mine = f.w.ask(f.locks, atom::start_v, start_attempt{key, f.granted(1, by), id_of<nonce>(9)}, by);
  REQUIRE(mine);
  CHECK(mine->lease == before);
  REQUIRE(f.run<ledger::done>(ledger::expire{f.me.session}));
  f.w.advance(11s);
  auto again = f.w.ask(f.locks, atom::reclaim_v, reclaim_lock{key, drv, id_of<nonce>(9), false}, by);
  REQUIRE(again);
  CHECK(again->token > mine->token);
  CHECK(again->lease.term > before.term);
}

TEST_CASE("a node whose name a newer process has taken gives up") {
  farm f;
  REQUIRE(f.run<ledger::done>(ledger::open_session{f.me.node, {2}, id_of<session_id>(8)}));
  f.w.advance(6s);
  CHECK(f.w.status("/oak/session").restarts > 0);
}

TEST_CASE("a lock in phase queued whose request is over is given back") {
  farm f;
  graph_state::peers peers{f.ledger_, f.locks, {}, {}, {}};
  graph_keeper_state::config c;
  c.me = f.me.session;
  c.directory = &f.w.directory;
  auto id = id_of<request_id>(1);
  auto ask = f.ask_for(1);
  ask.nonce = graph_nonce(id, f.first);
  REQUIRE(f.w.ask(f.locks, atom::acquire_v, ask, f.watch_with(none())));
  request_result over;
  over.state = request_state::failed;
  for (std::uint8_t r : {std::uint8_t{1}, std::uint8_t{2}}) {
    auto e = r == 1 ? f.first : f.second;
    REQUIRE(f.run<ledger::request_row>(ledger::finish{id_of<request_id>(r), e, over, {}}));
  }
  REQUIRE(f.row().phase == phase::queued); // its graph died before it could release it
  f.w.spawn<graph_keeper_state>(c, f.session, peers, rt::supervisor_actor{});
  f.w.advance(1s);
  CHECK(f.row().phase == phase::free);
}

namespace {

/// A FETCHER that counts what it is to fetch ahead.
class counting_fetcher {
public:
  using interface = fetcher_actor;
  static constexpr const char* name = "fetcher";
  counting_fetcher(rt::self<interface>*, std::shared_ptr<int> ahead) : ahead_(std::move(ahead)) {}
  interface::behavior_type make_behavior() {
    return {[](atom::fetch_atom, const std::vector<nix::store_path>&) { return fetched{}; },
            [this](atom::prefetch_atom, const prefetch&) { ++*ahead_; },
            [](atom::done_atom, std::uint64_t, const fetched&, const caf::error&) {}};
  }

private:
  std::shared_ptr<int> ahead_;
};

/// A WORKER_POOL of the farm's node that has no workers, and a lock that one of nonce 9 holds.
struct pool_farm : farm {
  std::filesystem::path dir =
      std::filesystem::temp_directory_path() / ("coppice-lock-pipeline-" + std::to_string(::getpid()));
  expected<store::kept_journal> kept = store::kept_journal::open(dir);
  lock_watcher_actor worker = watch_with(none());
  std::shared_ptr<int> ahead = std::make_shared<int>(0);
  worker_pool_actor pool;

  explicit pool_farm(machine_share share = {}) {
    static rt::inline_executor at_once; // outlives every actor
    REQUIRE(kept);
    REQUIRE(w.ask(locks, atom::start_v, start_attempt{key, granted(1, worker), id_of<nonce>(9)}, worker));
    worker_pool_state::config c;
    c.worker.node = me.node;
    c.worker.pool = c.worker.watch_pool = &at_once;
    c.worker.kept = &*kept;
    c.session = me.session;
    c.share = std::move(share);
    c.slots = 4;
    c.directory = &w.directory;
    c.workers_path = "/oak/workers";
    worker_state::peers peers{};
    peers.ledger = ledger_;
    peers.locks = locks;
    peers.fetcher = w.spawn<counting_fetcher>(ahead);
    pool = w.spawn<worker_pool_state>(c, peers, std::vector<offers_actor>{}, rt::supervisor_actor{});
  }
  ~pool_farm() { std::filesystem::remove_all(dir); }
};

} // namespace

TEST_CASE("a lock whose worker's end was not heard is given back after two looks, and counts as a death") {
  pool_farm f;
  f.w.advance(4s);
  CHECK(f.row().phase == phase::building); // a worker may be about to say that it is there
  f.w.advance(2s);
  CHECK(f.row().phase == phase::free);
  CHECK(f.row().infra_deaths == 1);
}

TEST_CASE("workers that die before they begin use up the derivation's tries, and nothing else") {
  pool_farm f;
  f.w.advance(1s); // it looks for what is kept, and at the machine, before it takes anything
  f.release(f.row().token);
  for (int death = 1; death <= 5; ++death) {
    auto token = f.granted(1, f.worker);
    job j;
    j.key = key;
    j.token = token;
    j.drv = drv;
    REQUIRE(f.w.ask(f.pool, atom::assign_v, j)); // there is no supervisor to start a WORKER
    f.w.settle();
    REQUIRE(f.row().phase == phase::free);
    REQUIRE(f.row().infra_deaths == static_cast<std::uint32_t>(death));
  }
  REQUIRE(f.row().failed);
  CHECK(f.row().failed->failure == failure::poisoned);
  CHECK_FALSE(std::holds_alternative<ledger::granted>(*f.acquire(1, f.worker)));
}

TEST_CASE("a job that takes more cores than are left is refused before it starts, and told why") {
  machine_share share;
  share.all = share.left = {4, std::uint64_t{1} << 60, std::uint64_t{1} << 60};
  share.each = {1, 0, 0};
  share.special = {{"big-parallel", {4, 0, 0}}};
  pool_farm f{share};
  f.w.advance(1s);
  f.w.tell(f.pool, atom::open_v, key, id_of<nonce>(9), true, false, share.each, f.worker); // it runs here
  job j;
  j.key.bytes.fill(77);
  j.token = {9};
  j.drv = drv;
  j.features = {"big-parallel"};
  const auto no = f.w.ask(f.pool, atom::assign_v, j);
  REQUIRE_FALSE(no);
  CHECK(no.error() == error{ec::overloaded, "oak has 3 of 4 cores left, and this build takes 4"});
  f.w.tell(f.pool, atom::ended_v, key, fence{1});
  CHECK(f.w.ask(f.pool, atom::assign_v, j));
}

TEST_CASE("a machine whose cores are all taken fetches ahead, one without room for another build does not") {
  for (bool memory : {true, false}) {
    machine_share share;
    share.all = share.left = {1, std::uint64_t{1} << 60, std::uint64_t{1} << 60};
    share.each = {1, memory ? 0 : std::uint64_t{1} << 59, 0};
    pool_farm f{share};
    f.w.advance(1s);
    f.w.tell(f.pool, atom::open_v, key, id_of<nonce>(9), true, false, share.each, f.worker);
    f.w.tell(f.pool, atom::prefetch_v, prefetch{});
    f.w.settle();
    CHECK(*f.ahead == memory);
  }
}

TEST_CASE("a lock whose worker is there is left alone") {
  pool_farm f;
  f.w.tell(f.pool, atom::open_v, key, id_of<nonce>(9), true, false, capacity{}, f.worker);
  f.w.advance(60s);
  CHECK(f.row().phase == phase::building);
}
