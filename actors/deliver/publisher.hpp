#pragma once

#include "messages/interfaces.hpp"
#include "nix/signature.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"
#include "store/blob_store.hpp"

#include <memory>
#include <set>

namespace coppice::actors {

/// Publishes what the ledger says is realised, until it is.
/// Takes: changed from LEDGER. Sends: T13 and reads of the outbox to LEDGER, narinfos to the store. Owns: nothing; the
/// outbox is in the ledger. Supervised by: DELIVER_SUP.
class publisher_state {
public:
  using interface = publisher_actor;
  static constexpr const char* name = "publisher";

  struct config {
    store::blob_store* blobs;
    rt::executor* pool;
    std::shared_ptr<const nix::secret_key> key;
    std::chrono::milliseconds scan_interval{10'000}; ///< between looks at the outbox when nothing was heard
    std::uint32_t batch_max = 256;                   ///< inhashes published at once
  };
  publisher_state(rt::self<interface>* self, config c, ledger_actor ledger);
  interface::behavior_type make_behavior();

private:
  void scan();
  void publish(const ledger::lock_state& row);
  void on_stored(const ledger::lock_state& row, const caf::error& e);

  rt::self<interface>* self_;
  config config_;
  ledger_actor ledger_;
  std::set<inhash> under_way_;
  bool left_over_ = false; ///< the outbox holds more than batch_max
};

} // namespace coppice::actors
