#pragma once

#include "store/etcd/client.hpp"
#include "store/ledger.hpp"

#include <atomic>

namespace coppice::store {

struct etcd_ledger_options {
  etcd::client_options client;
  std::string prefix = "/coppice/"; ///< of all its keys; several farms share an etcd under different ones
  node_id node;                     ///< who opens it
  /// Several may write at once. What they answer is as if one had; but reads may be old, and whoever is told of no
  /// changes but its own. False: one node at a time; another is refused until `lease` after that one's end.
  bool shared = false;
  std::chrono::seconds lease{10};
  std::int64_t page_rows = 1'000;              ///< read at once
  std::size_t operations_max = 128;            ///< in one transaction of etcd: its --max-txn-ops
  std::size_t transaction_bytes_max = 1 << 20; ///< below its --max-request-bytes
  /// The last change of a row that was known to whoever opened the ledger with this before. One that lacks it was
  /// restored from a backup, and is refused from then on, to others as well. Null: nothing is known, nor noted.
  std::shared_ptr<std::atomic<std::int64_t>> last_change;
};

/// The ledger under this prefix of an etcd, created if there is none. All its rows are kept in memory as well. Throws
/// ledger_io_error: `unavailable` if etcd does not answer, has no quorum or no space;
/// `forbidden` if it lets us not in; `locked` if another node has the ledger; `unsupported` if a newer version wrote
/// it; `ledger_regressed` if it was restored from a backup, as far as that is noticed.
std::unique_ptr<ledger_backend> open_etcd_ledger(etcd_ledger_options options, ledger_policy policy = {});

} // namespace coppice::store
