#pragma once

#include "actors/lock/watch_table.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"

namespace coppice::actors {

/// Grants, transfers and ends inhash locks, and wakes those who wait.
/// Takes: acquire, watch, start, release, partial, reclaim, commit, fail; changed from LEDGER. Sends: the
/// transactions to LEDGER, changed rows to watchers. Owns: who watches what (soft: watchers ask again).
/// Supervised by: LOCK_SUP, after SESSION.
class lock_manager_state {
public:
  using interface = lock_manager_actor;
  static constexpr const char* name = "lock-manager";

  lock_manager_state(rt::self<interface>* self, ledger_actor ledger, session_actor session);
  interface::behavior_type make_behavior();

private:
  using watcher = lock_watcher_actor;
  void watch(const inhash& key, const watcher& w);
  /// Runs `use` with this node's session once that is known.
  template <class Answer, class Make>
  caf::result<Answer> with_session(Make make);
  template <class Answer, class Tx>
  void forward(Tx tx, rt::reply<Answer> out);
  void tell(const ledger::changed& changes);

  rt::self<interface>* self_;
  ledger_actor ledger_;
  session_actor session_;
  watch_table<watcher> watchers_;
};

} // namespace coppice::actors
