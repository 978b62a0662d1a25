#pragma once

#include "actors/lock/lease.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"

#include <vector>

namespace coppice::actors {

/// Keeps this node's lease alive.
/// Takes: get, tick, also out of turn when the hub is there again. Sends: T1, T2 to LEDGER. Owns: the session's id and deadline (the ids are the process's: a
/// restarted SESSION resumes the same session).
/// Supervised by: LOCK_SUP, after LEDGER.
class session_state {
public:
  using interface = session_actor;
  static constexpr const char* name = "session";

  struct config {
    session_info me;
    lease_times leases;
    const rt::clock* clock;
    /// The ledger is of this process: it never ends this session, since it stands still whenever SESSION does, and a slow
    /// disk need not stop builds. Not so with a ledger elsewhere.
    bool keeps_ledger = false;
    std::string url = {}; ///< see ledger::open_session
  };
  session_state(rt::self<interface>* self, config c, ledger_actor ledger);
  interface::behavior_type make_behavior();

private:
  void open();
  void renew();
  void tick();
  void next_tick();
  lease_term current() const;
  session_info info() const;

  rt::self<interface>* self_;
  config config_;
  ledger_actor ledger_;
  lease lease_;
  bool open_ = false, opening_ = false;
  rt::boot_clock::time_point due_{}; ///< its own next tick
  std::uint64_t term_ = 0; ///< when the T1 was sent that opened the session: grows over restarts of SESSION, too
  std::vector<rt::reply<session_info>> waiting_;
};

} // namespace coppice::actors
