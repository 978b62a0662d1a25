#pragma once

#include "store/ledger.hpp"
#include "store/ledger_rules.hpp"
#include "tests/sim/invariants.hpp"
#include "tests/sim/mutants.hpp"

#include <functional>
#include <memory>
#include <vector>

namespace coppice::sim {

/// What may happen while a batch is made durable.
enum class accident {
  none,
  fails_before, ///< an error, and nothing of it was written
  fails_after,  ///< an error, and all of it was
  dies_before,  ///< the machine's power fails: nobody is answered
  dies_after
};

/// The disk under the ledger: the real rules on rows that outlive the hub's process, each transaction watched.
class ledger_disk {
public:
  ledger_disk(const store::ledger_policy& policy, invariants& watcher, mutant broken);
  ledger_disk(const ledger_disk&) = delete;
  ledger_disk& operator=(const ledger_disk&) = delete;

  /// For LEDGER, at each of its births.
  std::unique_ptr<store::ledger_backend> open();
  /// The process that opened it is gone, without having closed it.
  void lose_power();
  store::ledger_rows& rows() { return *rows_; }

  /// What happens to the next batch that changes something.
  accident next = accident::none;
  /// Ends the hub's process.
  std::function<void()> on_death;

private:
  friend class ledger_handle;
  struct entry {
    ledger::any_transaction transaction;
    std::int64_t wall_ms;
  };
  std::vector<expected<ledger::any_answer>> run(std::span<const ledger::any_transaction> batch, std::int64_t wall_ms,
                                                ledger::changed& changed);
  store::ledger_rules::answer apply(const ledger::any_transaction& t, std::int64_t wall_ms,
                                    store::ledger_changes& changes);

  const store::ledger_policy policy_;
  invariants& watcher_;
  const mutant broken_;
  std::unique_ptr<store::ledger_rows> rows_;
  std::vector<entry> journal_; ///< of a ledger that answers before it commits
  std::size_t durable_ = 0;    ///< so many of these are on the disk
  std::uint64_t opened_ = 0;   ///< only the last handle is good
};

} // namespace coppice::sim
