#ifdef COPPICE_ETCD

#include "ledger_adversary.hpp"
#include "messages/wire.hpp"
#include "store/etcd/cells.hpp"
#include "tests/support/tcp_proxy.hpp"

using namespace coppice;
using namespace coppice::test;
using namespace std::chrono_literals;
using store::open_etcd_ledger;

// Hidden: they need an etcd, which tests/cluster/etcd.py starts.
namespace {

std::vector<expected<ledger::any_answer>> run(ledger_backend& ledger, std::vector<ledger::any_transaction> batch,
                                              std::int64_t now = 1) {
  ledger::changed changed;
  return ledger.run(batch, now, changed);
}

struct refusal {
  ec code = ec::none;
  std::string what;
};
template <class Work>
refusal refused(Work work) {
  try {
    work();
  } catch (const ledger_io_error& e) {
    return {e.code(), e.what()};
  }
  return {};
}

std::vector<ledger::any_transaction> draw(adversary& says, ledger_backend& twin, unsigned most) {
  std::vector<ledger::any_transaction> batch;
  for (auto size = 1 + says.below(most); size > 0; --size)
    batch.push_back(says.next(twin));
  return batch;
}

/// All that can be read, but for the order in which things entered the outbox.
std::vector<expected<ledger::any_answer>> rows_of(ledger_backend& rows) {
  auto all = all_rows(rows);
  for (auto& answer : all)
    if (auto* locks = std::get_if<ledger::lock_states>(&*answer))
      std::sort(locks->rows.begin(), locks->rows.end(), [](auto& a, auto& b) { return a.key < b.key; });
  return all;
}

} // namespace

TEST_CASE("memory and etcd answer alike, whatever is said", "[.][etcd]") {
  auto seed = first_seed();
  for (unsigned n = 0; n < 4; ++n, ++seed) {
    INFO("COPPICE_SEED=" << seed);
    adversary says{seed};
    auto o = fresh_etcd_ledger();
    o.operations_max = n % 2 ? 128 : 6;
    auto memory = store::open_memory_ledger();
    auto etcd = open_etcd_ledger(o);
    for (std::int64_t now = 1; now < 200; ++now) {
      auto batch = draw(says, *memory, 16);
      ledger::changed in_memory, in_etcd;
      REQUIRE(memory->run(batch, now, in_memory) == etcd->run(batch, now, in_etcd));
      REQUIRE(in_memory == in_etcd);
      if (now % 50 == 0) {
        etcd.reset();
        etcd = open_etcd_ledger(o);
      }
    }
    REQUIRE(all_rows(*memory) == all_rows(*etcd));
    REQUIRE(memory->sessions() == etcd->sessions());
  }
}

TEST_CASE("two writers over one etcd answer as one would", "[.][etcd]") {
  auto seed = first_seed();
  for (unsigned n = 0; n < 4; ++n, ++seed) {
    INFO("COPPICE_SEED=" << seed);
    adversary says{seed};
    auto o = fresh_etcd_ledger();
    o.shared = true;
    auto memory = store::open_memory_ledger();
    std::array writers{open_etcd_ledger(o), open_etcd_ledger(o)};
    for (std::int64_t now = 1; now < 150; ++now) {
      auto batch = draw(says, *memory, 6);
      auto expected_answers = run(*memory, batch, now);
      auto answers = run(*writers[says.below(2)], batch, now);
      for (std::size_t i = 0; i < batch.size(); ++i)
        if (!std::holds_alternative<ledger::read_failures>(batch[i])) REQUIRE(answers[i] == expected_answers[i]);
    }
    REQUIRE(rows_of(*open_etcd_ledger(o)) == rows_of(*memory));
  }
}

TEST_CASE("a connection that is cut anywhere loses no write and repeats none", "[.][etcd]") {
  auto seed = first_seed();
  INFO("COPPICE_SEED=" << seed);
  adversary says{seed};
  auto url = etcd_endpoints().at(0);
  tcp_proxy network{std::stoi(url.substr(url.rfind(':') + 1))};
  auto o = fresh_etcd_ledger();
  o.client.endpoints = {network.url()};
  for (unsigned n = 0; n < 400; ++n)
    network.next(
        {says.below(2) ? tcp_proxy::way::down : tcp_proxy::way::up, 1500 + says.below(6000), tcp_proxy::act::cut});
  auto memory = store::open_memory_ledger();
  auto etcd = open_etcd_ledger(o);
  for (std::int64_t now = 1; now < 150; ++now) {
    auto batch = draw(says, *memory, 6);
    REQUIRE(run(*memory, batch, now) == run(*etcd, batch, now));
  }
  etcd.reset();
  o.client.endpoints = etcd_endpoints();
  REQUIRE(all_rows(*open_etcd_ledger(o)) == all_rows(*memory));
}

TEST_CASE("a transaction of many steps may be broken off between any two, and is completed when asked again",
          "[.][etcd]") {
  auto seed = first_seed();
  INFO("COPPICE_SEED=" << seed);
  adversary says{seed};
  auto url = etcd_endpoints().at(0);
  tcp_proxy network{std::stoi(url.substr(url.rfind(':') + 1))};
  auto o = fresh_etcd_ledger();
  o.operations_max = 6;
  auto broken = o;
  broken.client.endpoints = {network.url()};
  broken.client.patience = 0ms;
  auto memory = store::open_memory_ledger();
  unsigned breaks = 0;
  for (std::int64_t now = 1; now < 40; ++now) {
    auto setup = draw(says, *memory, 8);
    auto t = draw(says, *memory, 1);
    auto healthy = open_etcd_ledger(o);
    REQUIRE(run(*memory, setup, now) == run(*healthy, setup, now));
    healthy.reset();
    auto answers = run(*memory, t, now);
    for (unsigned tries = 0;; ++tries) {
      if (tries < 2) network.next({tcp_proxy::way::down, 2000 + says.below(1500), tcp_proxy::act::cut});
      std::vector<expected<ledger::any_answer>> got;
      auto end = refused([&] { got = run(*open_etcd_ledger(broken), t, now); });
      if (end.code == ec::none) {
        REQUIRE(got == answers);
        break;
      }
      ++breaks;
      REQUIRE(end.code == ec::unavailable);
      REQUIRE(tries < 50);
    }
  }
  REQUIRE(breaks > 0);
  REQUIRE(rows_of(*open_etcd_ledger(o)) == rows_of(*memory));
}

TEST_CASE("an etcd that is killed in the middle of commits loses nothing and repeats nothing", "[.][etcd-killed]") {
  const char* seconds = std::getenv("COPPICE_TEST_SECONDS");
  auto seed = first_seed();
  INFO("COPPICE_SEED=" << seed);
  adversary says{seed};
  auto o = fresh_etcd_ledger();
  o.client.patience = 60s;
  auto memory = store::open_memory_ledger();
  auto etcd = open_etcd_ledger(o);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{seconds ? std::atoi(seconds) : 1};
  std::int64_t now = 1;
  for (; std::chrono::steady_clock::now() < until; ++now) {
    auto batch = draw(says, *memory, 8);
    REQUIRE(run(*memory, batch, now) == run(*etcd, batch, now));
  }
  WARN(now << " batches");
  etcd.reset();
  REQUIRE(all_rows(*open_etcd_ledger(o)) == all_rows(*memory));
}

TEST_CASE("a ledger is read whole while etcd is compacted", "[.][etcd-scanned]") {
  auto seed = first_seed();
  INFO("COPPICE_SEED=" << seed);
  adversary says{seed};
  auto o = fresh_etcd_ledger();
  o.page_rows = 7;
  auto memory = store::open_memory_ledger();
  for (std::int64_t now = 1; now < 40; ++now) {
    auto etcd = open_etcd_ledger(o);
    for (int n = 0; n < 10; ++n) {
      auto batch = draw(says, *memory, 8);
      REQUIRE(run(*memory, batch, now) == run(*etcd, batch, now));
    }
    etcd.reset();
    REQUIRE(all_rows(*open_etcd_ledger(o)) == all_rows(*memory));
  }
}

TEST_CASE("an end of a session frees a thousand locks", "[.][etcd]") {
  farm f{kind::etcd};
  std::vector<ledger::any_transaction> batch;
  for (unsigned k = 0; k < 1000; ++k)
    batch.emplace_back(f.acquiring(k));
  for (auto& answer : run(f.backend(), batch))
    REQUIRE(std::holds_alternative<ledger::granted>(*answer));
  f.done(ledger::expire{session(0)});
  f.open();
  REQUIRE(f.ask<ledger::lock_states>(ledger::held_locks{session(0)}).rows.empty());
  REQUIRE(f.refused(ledger::keep_alive{session(0)}) == ec::session_over);
}

TEST_CASE("a ledger in etcd is one node's: another is refused, and an earlier process of the same is fenced off",
          "[.][etcd]") {
  auto o = fresh_etcd_ledger();
  auto first = open_etcd_ledger(o);
  run(*first, {ledger::open_session{node(0), {1}, session(0)}});
  auto other = o;
  other.node = {"n2"};
  auto locked = refused([&] { open_etcd_ledger(other); });
  REQUIRE(locked.code == ec::locked);
  REQUIRE_THAT(locked.what, Catch::Contains("open at the node n1"));
  auto second = open_etcd_ledger(o);
  REQUIRE(second->lineage() == first->lineage());
  REQUIRE(refused([&] { run(*first, {ledger::open_session{node(1), {1}, session(1)}}); }).code == ec::locked);
  REQUIRE(second->sessions() == std::vector{session(0)});
  first.reset();
  second.reset();
  open_etcd_ledger(other);
}

TEST_CASE("a ledger that lacks what was known of it before is refused, and from then on to others as well",
          "[.][etcd]") {
  auto o = fresh_etcd_ledger();
  o.last_change = std::make_shared<std::atomic<std::int64_t>>(0);
  run(*open_etcd_ledger(o), {ledger::open_session{node(0), {1}, session(0)}});
  const auto known = o.last_change->load();
  open_etcd_ledger(o);
  REQUIRE(*o.last_change == known);
  ++*o.last_change;
  auto older = refused([&] { open_etcd_ledger(o); });
  REQUIRE(older.code == ec::ledger_regressed);
  o.last_change = nullptr;
  o.node = {"n2"};
  auto others = refused([&] { open_etcd_ledger(o); });
  REQUIRE(others.code == ec::ledger_regressed);
  REQUIRE(others.what == older.what);
}

TEST_CASE("where no etcd is, that is said with its address", "[.][etcd]") {
  auto o = fresh_etcd_ledger();
  o.client.endpoints = {"http://127.0.0.1:9", "http://127.0.0.1:10"};
  o.client.patience = 300ms;
  auto nobody = refused([&] { open_etcd_ledger(o); });
  REQUIRE(nobody.code == ec::unavailable);
  REQUIRE_THAT(nobody.what, Catch::Contains("127.0.0.1:9") || Catch::Contains("127.0.0.1:10"));
  o.client.endpoints = {};
  REQUIRE(refused([&] { open_etcd_ledger(o); }).code == ec::invalid);
  o.client.endpoints = {"127.0.0.1:2379"};
  auto scheme = refused([&] { open_etcd_ledger(o); });
  REQUIRE(scheme.code == ec::invalid);
  REQUIRE_THAT(scheme.what, Catch::Contains("127.0.0.1:2379") && Catch::Contains("http://"));
}

TEST_CASE("an endpoint that is dead is left for one that lives", "[.][etcd]") {
  auto o = fresh_etcd_ledger();
  o.client.endpoints.insert(o.client.endpoints.begin(), "http://127.0.0.1:9");
  auto ledger = open_etcd_ledger(o);
  REQUIRE(run(*ledger, {ledger::open_session{node(0), {1}, session(0)}}).at(0));
}

TEST_CASE("a ledger in etcd of a newer version is refused", "[.][etcd]") {
  auto o = fresh_etcd_ledger();
  auto client = *store::etcd::open_client(o.client);
  auto row = wire::encode(store::etcd::meta_row{store::etcd::schema_version + 1, "x"});
  REQUIRE(client->txn({{}, {{o.prefix + store::etcd::meta_cell, row}}})->applied);
  REQUIRE(refused([&] { open_etcd_ledger(o); }).code == ec::unsupported);
}

TEST_CASE("a row that is no row is corrupt, and is named", "[.][etcd]") {
  auto o = fresh_etcd_ledger();
  auto client = *store::etcd::open_client(o.client);
  auto cell = store::etcd::lock_cell(key(1));
  REQUIRE(client->txn({{}, {{o.prefix + cell, "junk"}}})->applied);
  auto corrupt = refused([&] { open_etcd_ledger(o); });
  REQUIRE(corrupt.code == ec::corrupt);
  REQUIRE_THAT(corrupt.what, Catch::Contains(cell));
}

TEST_CASE("a row larger than etcd takes is refused by itself", "[.][etcd]") {
  farm f{kind::etcd};
  request_body body;
  for (unsigned n = 0; n < 20'000; ++n)
    body.roots.push_back({drv(n), {std::string(100, 'x')}});
  auto answers = run(f.backend(), {ledger::submit{request(7), "alice", body}, ledger::keep_alive{session(0)}});
  REQUIRE_FALSE(answers.at(0));
  REQUIRE(answers.at(0).error().code == ec::limit_exceeded);
  REQUIRE(answers.at(1));
}

#endif
