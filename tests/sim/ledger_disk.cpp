#include "tests/sim/ledger_disk.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace coppice::sim {

class ledger_handle final : public store::ledger_backend {
public:
  ledger_handle(ledger_disk& disk, std::uint64_t number) : disk_(disk), number_(number) {}
  std::vector<expected<ledger::any_answer>> run(std::span<const ledger::any_transaction> batch,
                                                std::int64_t wall_now_ms, ledger::changed& changed) override {
    if (number_ != disk_.opened_) throw store::ledger_io_error(ec::locked, "the ledger was opened again");
    return disk_.run(batch, wall_now_ms, changed);
  }
  std::vector<session_id> sessions() override { return disk_.rows().live_sessions(); }
  std::string lineage() const override { return "simulated"; }

private:
  ledger_disk& disk_;
  const std::uint64_t number_;
};

ledger_disk::ledger_disk(const store::ledger_policy& policy, invariants& watcher, mutant broken)
    : policy_(policy), watcher_(watcher), broken_(broken), rows_(store::make_memory_rows()) {}

std::unique_ptr<store::ledger_backend> ledger_disk::open() {
  watcher_.reopened(*rows_);
  return std::make_unique<ledger_handle>(*this, ++opened_);
}

void ledger_disk::lose_power() {
  ++opened_;
  if (durable_ == journal_.size()) return;
  journal_.resize(durable_);
  rows_ = store::make_memory_rows();
  for (auto& e : journal_) {
    store::ledger_changes ignored;
    (void)store::ledger_rules{*rows_, policy_, e.wall_ms, ignored}.apply(e.transaction); // ignored: given before
  }
}

std::vector<expected<ledger::any_answer>> ledger_disk::run(std::span<const ledger::any_transaction> batch,
                                                           std::int64_t wall_ms, ledger::changed& changed) {
  auto happens = accident::none;
  if (next != accident::none && std::any_of(batch.begin(), batch.end(), [](auto& t) { return writes(t); }))
    happens = std::exchange(next, accident::none);
  auto die = [&] {
    on_death();
    throw store::ledger_io_error(ec::io, "the power failed");
  };
  if (happens == accident::fails_before) throw store::ledger_io_error(ec::io, "the disk failed");
  if (happens == accident::dies_before) die();
  store::ledger_changes all;
  std::vector<expected<ledger::any_answer>> answers;
  if (broken_ == mutant::answer_before_commit) durable_ = journal_.size();
  for (auto& t : batch) {
    store::ledger_changes one;
    answers.push_back(apply(t, wall_ms, one));
    for (auto& [key, row] : one.locks)
      all.locks.insert_or_assign(key, row);
    all.requests.merge(one.requests);
    all.outbox |= one.outbox;
    std::move(one.events.begin(), one.events.end(), std::back_inserter(all.events));
  }
  if (happens == accident::fails_after) throw store::ledger_io_error(ec::io, "the disk failed");
  if (happens == accident::dies_after) die();
  all.append_to(changed);
  return answers;
}

store::ledger_rules::answer ledger_disk::apply(const ledger::any_transaction& t, std::int64_t wall_ms,
                                               store::ledger_changes& changes) {
  if (broken_ == mutant::answer_before_commit && writes(t)) journal_.push_back({t, wall_ms});
  auto answer = apply_broken(broken_, t, store::ledger_rules{*rows_, policy_, wall_ms, changes}, *rows_, changes);
  watcher_.applied(t, answer, changes, *rows_);
  return answer;
}

} // namespace coppice::sim
