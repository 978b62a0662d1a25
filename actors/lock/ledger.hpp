#pragma once

#include "actors/events.hpp"
#include "actors/lock/lease.hpp"
#include "actors/lock/member_watch.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"
#include "store/ledger.hpp"

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace coppice::actors {

class ledger_queue;

/// LEDGER with what members say to it.
using hub_ledger_actor = ledger_actor::extend<caf::reacts_to<atom::watch_atom, watch_ledger, ledger_watcher_actor>>;

/// Runs transactions on the durable ledger, in batches, and reports changes.
/// Takes: transact; watch from members. Sends: answers; changed to those who watch. Owns: the backend, in jobs of one executor.
/// Supervised by: LOCK_SUP, first of rest_for_one. An I/O error kills it: it never goes on with the same handle.
class ledger_state {
public:
  using interface = hub_ledger_actor;
  static constexpr const char* name = "ledger";

  struct watchers {
    lock_manager_actor locks;
    graph_keeper_actor graphs;
    publisher_actor publisher;
  };
  struct config {
    std::function<std::unique_ptr<store::ledger_backend>()> open; ///< called in a job after each birth; may throw, and take its time
    lease_times leases;
    const rt::clock* clock;
    rt::executor* thread; ///< runs the batches; nothing else should keep it busy
    std::size_t queue_max = 65'536; ///< transactions that wait; further ones: overloaded
    std::size_t batch_max = 1'024;  ///< transactions in one durable commit
    event_port events = {};
    /// Some incarnation has had it open: from then on it is waited for while it is unavailable. Shared by all of them.
    std::shared_ptr<std::atomic<bool>> opened = std::make_shared<std::atomic<bool>>(false);
    session_id own = {}; ///< never ends by time: it is this process's, which stands still whenever LEDGER does
  };

  ledger_state(rt::self<interface>* self, config c, watchers w);
  ~ledger_state();
  interface::behavior_type make_behavior();

private:
  caf::result<ledger::answer> transact(ledger::transaction& t);
  expected<void> hear(const session_id& session, std::int64_t ttl_ms);
  void on_finished();
  void expire_leases();
  void on_watch(const watch_ledger& w, const ledger_watcher_actor& who);

  rt::self<interface>* self_;
  config config_;
  watchers watchers_;
  lease_table leases_;
  member_watch<ledger_watcher_actor> members_;
  std::map<std::uint64_t, rt::reply<ledger::answer>> open_;
  std::uint64_t next_ = 0;
  std::shared_ptr<ledger_queue> queue_;
};

} // namespace coppice::actors
