#pragma once

#include "ledger_support.hpp"
#include "nix/derivation.hpp"
#include "tests/support/seed.hpp"

#include <map>
#include <random>

namespace coppice::test {

inline constexpr unsigned keys = 4, nodes = 3, requests = 4, blobs = 4;

/// Draws transactions that often fit the rows, and often are late, early, repeated or another's.
class adversary {
public:
  explicit adversary(unsigned seed) : random_(seed) {}

  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  bool often() { return below(10) < 7; }

  ledger::any_transaction next(ledger_backend& rows) {
    if (!said_.empty() && below(5) == 0) return said_[below(static_cast<unsigned>(said_.size()))];
    auto t = draw(rows);
    said_.push_back(t);
    return t;
  }

  /// Kinds of success seen, so that a run which only collects refusals does not pass.
  std::map<std::size_t, unsigned> successes;

private:
  template <class Answer>
  static Answer read(ledger_backend& rows, ledger::any_transaction t) {
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

  ledger::any_transaction draw(ledger_backend& rows) {
    auto k = below(keys);
    auto r = request(below(requests));
    auto row = read<ledger::lock_states>(rows, ledger::read_locks{{key(k)}}).rows.at(0);
    auto b = blob(4 * k + below(2));
    auto failing = static_cast<failure>(1 + below(static_cast<unsigned>(failure::last_)));
    switch (below(30)) {
    case 0:
      return ledger::open_session{node(below(nodes)), {1 + below(2)}, some_session(), 0,
                                  below(3) ? "http://" + std::to_string(below(3)) : ""};
    case 1: return below(3) ? ledger::any_transaction{ledger::keep_alive{some_session()}} : ledger::expire{some_session()};
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
      f.result.roots = {{drv(k), often() ? row.outputs : outputs(rows, k), failure::none}};
      f.result.reason = std::to_string(below(1000));
      return f;
    }
    case 25: return below(3) ? ledger::any_transaction{ledger::retire{key(k)}} : ledger::cancel{r, below(2) ? "alice" : "bob", below(2) == 0};
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
  std::vector<ledger::any_transaction> said_;
};

/// Everything that can be read.
inline std::vector<expected<ledger::any_answer>> all_rows(ledger_backend& rows) {
  std::vector<ledger::any_transaction> reads{ledger::held_locks{}, ledger::outbox{100}, ledger::read_requests{{}, 100},
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

inline unsigned first_seed() {
  return static_cast<unsigned>(seed_or(std::random_device{}()));
}

} // namespace coppice::test
