#pragma once

#include "messages/ledger.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

/// The durable, linearizable table behind the lock managers: who builds what, what was built, who waits for it.
namespace coppice::store {

/// The ledger's storage failed: nobody knows what of the batch is durable. The handle must not be used again.
class ledger_io_error : public std::runtime_error {
public:
  ledger_io_error(ec code, const std::string& what) : std::runtime_error(what), code_(code) {}
  /// `storage_full`, `corrupt`, `locked` or `io`, of a ledger elsewhere also `unavailable` or `forbidden`; on opening
  /// also `invalid` (no ledger), `unsupported` or `ledger_regressed`.
  ec code() const noexcept { return code_; }

private:
  ec code_;
};

/// When an inhash is given up, and for how long that is remembered (reliability.md 4.12, INV-17, INV-18).
struct ledger_policy {
  /// Deaths on this many different nodes make an inhash `poisoned`.
  std::uint32_t poison_max = 3;
  /// So do this many deaths in a row, wherever they happened: a farm of one machine must end, too. As many attempts in
  /// a row that end in something that passes fail for the requests that wait.
  std::uint32_t attempts_max = 5;
  /// What failed for good so many times answers later requests, too; 0: never.
  std::uint32_t failures_threshold = 3;
  /// Each time that this is over since the last failure, one fewer counts; 0: they count for ever. By the wall clock:
  /// if that jumps, something is tried once more, or once less.
  std::chrono::milliseconds failures_decay{std::chrono::hours{1}};
};

/// A place that keeps the ledger. One thread at a time.
class ledger_backend {
public:
  virtual ~ledger_backend() = default;

  /// Runs the transactions in their order as one durable unit: once it returns, all of them outlive a crash. An
  /// answer that is an error means that this transaction changed nothing. Appends to `changed` what the batch
  /// changed, each inhash once and in its last state. Throws ledger_io_error; then nothing may be answered.
  virtual std::vector<expected<ledger::any_answer>> run(std::span<const ledger::any_transaction> batch,
                                                        std::int64_t wall_now_ms, ledger::changed& changed) = 0;

  /// The current session of every node. After a restart each of them is given a whole lease anew.
  virtual std::vector<session_id> sessions() = 0;

  /// Drawn when the ledger was created; a node refuses one that it does not know (reliability.md 4.10).
  virtual std::string lineage() const = 0;
};

/// A ledger that dies with its process: for tests and simulations.
std::unique_ptr<ledger_backend> open_memory_ledger(ledger_policy policy = {});

/// The ledger in this file, created if it is not there. Throws ledger_io_error if it cannot be opened or created, is
/// open in another process, is damaged, or was written by a newer version. A file that would grow beyond
/// `file_bytes_max` (0: the disk's end) is a full disk.
std::unique_ptr<ledger_backend> open_sqlite_ledger(const std::filesystem::path& file, ledger_policy policy = {},
                                                   std::uint64_t file_bytes_max = 0);

} // namespace coppice::store
