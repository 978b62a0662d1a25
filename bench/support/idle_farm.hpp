#pragma once

#include "bench/support/measure.hpp"
#include "bench/support/usage.hpp"
#include "messages/build.hpp"
#include "messages/client.hpp"
#include "store/ledger.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace coppice::bench {

/// A farm whose builders do nothing, solo or with members: everything of the pipeline is real (GATEWAY, GRAPH,
/// LOCK_MANAGER, LEDGER with its SQLite file, ALLOCATOR, WORKER_POOL, supervisors, PUBLISHER with its signatures) but
/// WORKER, which is replaced by one that starts its attempt, commits outputs made up from the derivation, and ends; and
/// the blob store, which is kept in memory.
class idle_farm {
public:
  struct options {
    std::filesystem::path dir; ///< for the ledger; on a real disk
    std::uint32_t slots = 256; ///< builds at once
    bool events = true; ///< it keeps events, and while a request runs somebody follows them
    std::function<std::unique_ptr<store::ledger_backend>()> open_ledger = {}; ///< empty: SQLite's in `dir`
    /// So many processes of their own build instead, `slots` each, which reach this one over loopback with CURVE. The
    /// first farm of a program alone may have some: they are forked before it has threads.
    std::uint32_t members = 0;
  };
  explicit idle_farm(const options& o);
  ~idle_farm();

  /// The derivations by path, with their texts, and the roots among them.
  struct request {
    std::vector<std::pair<nix::store_path, std::string>> derivations;
    std::vector<nix::store_path> roots;
  };
  /// What one request cost: `cost` of all processes, the rest of this one.
  struct result {
    bench::cost cost;
    thread_use busiest;
    std::int64_t memory_bytes = 0; ///< resident at most, beyond what was before
    std::uint64_t built = 0;
    std::uint64_t ledger_bytes = 0; ///< of its files afterwards
    std::uint64_t followed_bytes = 0; ///< of events, as they would be sent
  };
  /// Submits the request to GATEWAY and follows it to its result; throws std::runtime_error if it did not succeed.
  result run(const request& r);

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace coppice::bench
