#pragma once

#include "actors/build/fetch_plan.hpp"
#include "messages/build.hpp"
#include "store/blob_store.hpp"
#include "store/held_fetch.hpp"
#include "store/local_store.hpp"

#include <vector>

namespace coppice::actors {

/// With what FETCHER's work is done.
struct fetch_means {
  store::blob_store* blobs;
  store::local_store* local;
  store::held_fetch* held; ///< may be null if no machine is ever asked
};

/// How a path came, or did not.
struct fetch_report {
  expected<void> done;
  bool lost = false; ///< the farm's store has not got its bytes any more: `done` says which
  enum class word : std::uint8_t { served, failed, wrong };
  std::vector<std::pair<node_id, word>> holders = {}; ///< those that were asked, and what there is to remember of it
  std::uint64_t held_bytes = 0, store_bytes = 0;      ///< of the NAR, by whence they came
};

/// Makes one path valid in the local store, which verifies its hash (INV-16), by the pool: blocks. Asks these machines
/// in their order, and then the farm's store; what one breaks off the next goes on with. If the bytes turn out to be
/// wrong, the machines that had a part in them are named `wrong`, and the store is asked for all of them. What the
/// store by itself has not, or gave wrong twice, is taken out of it: `lost`. A store on another machine looks for
/// itself, and refuses (`conflict`) if the fault is ours.
fetch_report fetch_path(const fetch_means& means, const path_info& info,
                        const std::vector<ledger::path_holder>& holders);

} // namespace coppice::actors
