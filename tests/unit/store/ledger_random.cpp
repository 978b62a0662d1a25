#include "ledger_support.hpp"
#include "nix/derivation.hpp"
#include "tests/support/seed.hpp"

#include <map>
#include <random>

using namespace coppice;
using namespace coppice::test;
using ledger::any_transaction;
using ledger::phase;

namespace {

constexpr unsigned keys = 4, nodes = 3, requests = 4, blobs = 4;

/// Draws transactions that often fit the rows, and often are late, early, repeated or another's.
class adversary {
public:
  explicit adversary(unsigned seed) : random_(seed) {}

  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  bool often() { return below(10) < 7; }

  any_transaction next(ledger_backend& rows) {
    if (!said_.empty() && below(5) == 0) return said_[below(static_cast<unsigned>(said_.size()))];
    auto t = draw(rows);
    said_.push_back(t);
    return t;
  }

  /// Kinds of success seen, so that a run which only collects refusals does not pass.
  std::map<std::size_t, unsigned> successes;

private:
  template <class Answer>
  static Answer read(ledger_backend& rows, any_transaction t) {
    ledger::changed ignored; // ignored: reads change nothing
    return std::get<Answer>(*rows.run({&t, 1}, 0, ignored).at(0));
  }
  session_id some_session() { return session(10 * below(nodes) + below(2)); }
  holder some_holder() { return {some_session(), id<nonce>(below(2))}; }
  fence token(const ledger::lock_state& row) {
    if (often()) return row.token;
    return {row.token.value == 0 ? 0 : below(static_cast<unsigned>(row.token.value) + 1)};
  }
  epoch current(ledger_backend& rows, const request_id& r) {
    auto found = read<ledger::request_rows>(rows, ledger::read_requests{r, 1}).rows;
    auto e = found.empty() ? 1 : found[0].epoch.value;
    return {often() || e == 0 ? e : e - 1};
  }
  std::vector<realised_output> outputs(ledger_backend& rows, unsigned k) {
    auto b = 4 * k + below(2);
    auto gen = read<ledger::blob_state>(rows, ledger::stat_blob{blob(b)}).gen;
    if (!often()) gen.value = 1 + below(3);
    return {{"out", info("step" + std::to_string(k), b, gen)}};
  }

  any_transaction draw(ledger_backend& rows) {
    auto k = below(keys);
    auto r = request(below(requests));
    auto row = read<ledger::lock_states>(rows, ledger::read_locks{{key(k)}}).rows.at(0);
    auto b = blob(4 * k + below(2));
    auto failing = static_cast<failure>(1 + below(static_cast<unsigned>(failure::last_)));
    switch (below(30)) {
    case 0:
      return ledger::open_session{node(below(nodes)), {1 + below(2)}, some_session(), 0,
                                  below(3) ? "http://" + std::to_string(below(3)) : ""};
    case 1: return below(3) ? any_transaction{ledger::keep_alive{some_session()}} : ledger::expire{some_session()};
    case 2: {
      request_body body;
      body.closure = blob(below(blobs));
      body.roots = {{drv(k), {}}};
      return ledger::submit{r, "alice", body};
    }
    case 3:
    case 4: return ledger::adopt{r, some_session()};
    case 5:
    case 6:
    case 7:
    case 8: return ledger::acquire{key(k), drv(k), r, current(rows, r), some_holder(), below(4) == 0};
    case 9:
    case 10:
    case 11:
    case 12: return ledger::start{key(k), token(row), some_holder(), node(below(nodes))};
    case 13: return ledger::release{key(k), token(row), failing, "released"};
    case 14: return ledger::partial{key(k), token(row)};
    case 15: return ledger::reclaim{key(k), drv(k), some_holder(), node(below(nodes)), below(2) == 0};
    case 16:
    case 17: {
      auto gen = read<ledger::blob_state>(rows, ledger::stat_blob{b}).gen;
      return ledger::register_blob{b, often() ? gen : generation{1 + below(3)}, 5};
    }
    case 18:
    case 19:
    case 20: return ledger::commit{key(k), token(row), outputs(rows, k)};
    case 21:
      return ledger::fail_attempt{key(k),
                                  token(row),
                                  failing,
                                  "failed",
                                  "log",
                                  {},
                                  often() ? std::vector<nix::store_path>{} : std::vector{drv(k)}};
    case 22:
    case 23: return ledger::published{key(k), often() ? row.outputs : outputs(rows, k)};
    case 24: {
      ledger::finish f{r, current(rows, r), {}, {key(k)}};
      f.result.state = static_cast<request_state>(below(4));
      f.result.reason = std::to_string(below(1000));
      return f;
    }
    case 25: return below(3) ? any_transaction{ledger::retire{key(k)}} : ledger::cancel{r, below(2) ? "alice" : "bob", below(2) == 0};
    case 26: return ledger::condemn{b, {1 + below(3)}};
    case 27: return ledger::gone{b, {1 + below(3)}};
    case 28:
      if (below(2)) return ledger::read_failures{often() ? std::nullopt : std::optional{drv(k)}, 10};
      return ledger::forget_failures{often() ? std::optional{drv(k)} : std::nullopt};
    default:
      if (below(2)) return ledger::substitute{key(k), drv(k), outputs(rows, k)};
      return ledger::add_source{info("source" + std::to_string(below(2)), 4 * k + below(2), {1 + below(2)})};
    }
  }

  std::mt19937 random_;
  std::vector<any_transaction> said_;
};

/// Everything that can be read.
std::vector<expected<ledger::any_answer>> all_rows(ledger_backend& rows) {
  std::vector<any_transaction> reads{ledger::held_locks{}, ledger::outbox{100}, ledger::read_requests{{}, 100},
                                     ledger::read_attempts{{}, {}, 0, 10'000}, ledger::read_failures{}};
  ledger::read_locks locks;
  ledger::read_paths paths{{}, true};
  for (unsigned k = 0; k < keys; ++k) {
    locks.keys.push_back(key(k));
    paths.paths.push_back(path("step" + std::to_string(k)));
    paths.paths.push_back(path("source" + std::to_string(k)));
    reads.emplace_back(ledger::read_attempts{key(k), drv(k), 500, 10});
    reads.emplace_back(ledger::read_attempts{{}, drv(k), 0, 10});
    reads.emplace_back(ledger::read_attempts{{}, {}, 500, 3, key(k), {k}});
    reads.emplace_back(ledger::held_locks{{}, 2, session(10 * (k % nodes)), key(k)});
    reads.emplace_back(ledger::held_locks{session(10 * (k % nodes)), 2, session(10 * (k % nodes)), key(k)});
    reads.emplace_back(ledger::read_failures{{}, 2, 500, key(k)});
    reads.emplace_back(ledger::read_requests{{}, 2, 2, k, k + 2});
    reads.emplace_back(ledger::read_durations{{std::string(nix::derivation_name(drv(k)))}});
  }
  for (unsigned b = 0; b < 4 * keys; ++b)
    reads.emplace_back(ledger::stat_blob{blob(b)});
  reads.emplace_back(locks);
  reads.emplace_back(paths);
  ledger::changed changed;
  auto answers = rows.run(reads, 0, changed);
  REQUIRE(changed == ledger::changed{});
  return answers;
}

/// What must hold of every history, told one change after the other.
class witness {
public:
  void see(const ledger::lock_state& row) {
    auto& before = locks_[row.key];
    INFO("inhash " << row.key.to_string());
    REQUIRE(row.token >= before.token); // INV-7
    bool held_before = before.phase != phase::free && before.phase != phase::realised;
    if (held_before && row.token == before.token && row.phase != phase::free && row.phase != phase::realised)
      REQUIRE(row.holder == before.holder); // INV-1: another holder has another token
    if (before.phase == phase::realised && row.phase == phase::realised)
      REQUIRE(row.outputs == before.outputs); // INV-4
    if (row.phase == phase::realised && before.phase != phase::realised)
      // INV-1: from under a token, or by T19 if nobody holds one
      REQUIRE((before.phase == phase::building || before.phase == phase::partial || before.phase == phase::free));
    before = row;
  }
  void see(const any_transaction& t, const ledger::any_answer& answer) {
    std::visit([&](const auto& x) { see_answer(x, answer); }, t);
  }
  const ledger::lock_state& lock(const inhash& key) { return locks_[key]; }
  void see(const ledger::request_row& row) {
    auto& before = requests_.try_emplace(row.id, row).first->second;
    REQUIRE(row.epoch >= before.epoch); // INV-7
    if (before.state != request_state::open)
      REQUIRE((row.state == before.state && row.result == before.result)); // INV-5
    before = row;
  }

private:
  template <class T>
  void see_answer(const T& t, const ledger::any_answer& answer) {
    if constexpr (requires { t.who; })
      if (auto* g = std::get_if<ledger::granted>(&answer)) { // INV-1: a token has one asker
        auto [known, fresh] = granted_.try_emplace({t.key, g->token}, t.who);
        REQUIRE(known->second == t.who);
        REQUIRE(g->token == lock(t.key).token);
      }
    if constexpr (std::is_same_v<T, ledger::finish> || std::is_same_v<T, ledger::cancel>)
      see(std::get<ledger::request_row>(answer));
    if constexpr (std::is_same_v<T, ledger::commit>) REQUIRE(t.token == lock(t.key).token); // INV-9
  }

  std::map<inhash, ledger::lock_state> locks_;
  std::map<request_id, ledger::request_row> requests_;
  std::map<std::pair<inhash, fence>, holder> granted_;
};

/// INV-8: what is named is there.
void require_named_blobs_present(ledger_backend& rows) {
  for (auto& answer : all_rows(rows))
    if (auto* paths = std::get_if<ledger::path_infos>(&*answer))
      for (auto& info : paths->rows) {
        any_transaction stat = ledger::stat_blob{info.blob};
        ledger::changed changed;
        REQUIRE(rows.run({&stat, 1}, 0, changed).at(0) == ledger::any_answer{ledger::blob_state{info.gen, true}});
      }
}

/// May this have changed that inhash? Nothing that carries a token does, unless it is the current one. INV-9
template <class T>
bool is_stale(const T& t, witness& w) {
  if constexpr (requires { t.token; }) return t.token != w.lock(t.key).token;
  return false;
}

unsigned first_seed() {
  return static_cast<unsigned>(seed_or(std::random_device{}()));
}

} // namespace

TEST_CASE("memory and SQLite answer alike, whatever is said", "[ledger]") {
  auto seed = first_seed();
  for (unsigned n = 0; n < 10; ++n, ++seed) {
    INFO("COPPICE_SEED=" << seed);
    temporary_directory dir;
    auto memory = store::open_memory_ledger();
    auto sqlite = store::open_sqlite_ledger(dir / "a.db");
    adversary says{seed};
    for (std::int64_t now = 1; now < 300; ++now) {
      std::vector<any_transaction> batch;
      for (auto size = 1 + says.below(8); size > 0; --size)
        batch.push_back(says.next(*memory));
      ledger::changed in_memory, in_sqlite;
      auto wall_ms = now + says.below(3);
      REQUIRE(memory->run(batch, wall_ms, in_memory) == sqlite->run(batch, wall_ms, in_sqlite));
      REQUIRE(in_memory == in_sqlite);
      if (now % 100 == 0) {
        sqlite.reset();
        sqlite = store::open_sqlite_ledger(dir / "a.db");
      }
    }
    REQUIRE(all_rows(*memory) == all_rows(*sqlite));
    REQUIRE(memory->sessions() == sqlite->sessions());
  }
}

TEST_CASE("no adversary breaks the ledger's invariants", "[ledger]") {
  auto seed = first_seed();
  std::map<std::size_t, unsigned> successes;
  for (unsigned n = 0; n < 40; ++n, ++seed) {
    INFO("COPPICE_SEED=" << seed);
    auto ledger = store::open_memory_ledger();
    adversary says{seed};
    witness w;
    for (std::int64_t now = 1; now < 800; ++now) {
      auto t = says.next(*ledger);
      INFO("step " << now << ", transaction kind " << t.index());
      bool stale = std::visit([&](const auto& x) { return is_stale(x, w); }, t);
      ledger::changed changed, again;
      auto answer = ledger->run({&t, 1}, now, changed).at(0);
      for (auto& row : changed.locks)
        w.see(row);
      if (stale) REQUIRE(changed.locks.empty());
      if (!answer) REQUIRE(changed == ledger::changed{});
      if (answer) w.see(t, *answer);
      if (answer) ++successes[t.index()];
      // INV-10
      REQUIRE(ledger->run({&t, 1}, now, again).at(0) == answer);
      REQUIRE(again == ledger::changed{});
      if (now % 50 == 0) require_named_blobs_present(*ledger);
    }
    auto rows = all_rows(*ledger);
    for (auto& row : std::get<ledger::request_rows>(*rows.at(2)).rows)
      w.see(row);
  }
  std::vector<std::size_t> changing{any_transaction{ledger::gone{}}.index(), any_transaction{ledger::forget_failures{}}.index()};
  for (std::size_t kind = 0; kind <= any_transaction{ledger::add_source{}}.index(); ++kind) changing.push_back(kind);
  for (auto kind : changing) {
    INFO("transactions of kind " << kind << " that succeeded");
    REQUIRE(successes[kind] > 0);
  }
}
