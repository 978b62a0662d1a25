#include "ledger_adversary.hpp"

using namespace coppice;
using namespace coppice::test;
using ledger::any_transaction;
using ledger::phase;

namespace {

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

} // namespace

TEST_CASE("memory and SQLite answer alike, whatever is said", "[ledger][random]") {
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

TEST_CASE("no adversary breaks the ledger's invariants", "[ledger][random]") {
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
