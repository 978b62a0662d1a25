#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"

#include <chrono>

namespace coppice::actors {

/// LEDGER on a member, with what the hub's says to it.
using ledger_link_actor = ledger_actor::extend<
    caf::reacts_to<atom::changed_atom, ledger::changed>,
    /// The hub is there, again perhaps: it is to tell of what is held here before anything more is begun.
    caf::reacts_to<atom::watch_atom>>;

/// LEDGER on a member: the hub's, under the name that it has everywhere.
/// Takes: transact, watch; changed from the hub. Sends: transactions to the hub's LEDGER, changed to LOCK_MANAGER. Owns: nothing.
/// Supervised by: LOCK_SUP, first of rest_for_one.
class ledger_link_state {
public:
  using interface = ledger_link_actor;
  static constexpr const char* name = "ledger";

  struct config {
    session_id session;                             ///< of this process
    node_id hub;
    std::chrono::milliseconds watch_interval{5'000}; ///< between two words that it watches
  };
  ledger_link_state(rt::self<interface>* self, config c, farm_ledger_actor hub, lock_manager_actor locks);
  interface::behavior_type make_behavior();

private:
  void watch();
  void watch_again();

  rt::self<interface>* self_;
  config config_;
  farm_ledger_actor hub_;
  lock_manager_actor locks_;
  std::uint64_t passed_ = 0;
};

} // namespace coppice::actors
