#pragma once

#include "actors/build/room.hpp"
#include "actors/build/worker.hpp"
#include "actors/events.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/supervisor.hpp"

#include <functional>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <string_view>

namespace coppice::actors {

/// What a WORKER_POOL tells itself besides what others tell it.
using worker_pool_self_actor = worker_pool_actor::extend<
  // INTERNAL: the journal of kept outputs was read, or not
  caf::reacts_to<atom::stored_atom, std::shared_ptr<const store::kept_listing>, caf::error>>;

/// Offers this machine's free slots, as far as builds still fit on it, and turns an assignment into a WORKER.
/// Takes: assign, prefetch from ALLOCATORs, ended from WORKERs. Sends: offer to ALLOCATORs, prefetch to FETCHER, children to WORKERS_SUP, T7 for a
/// WORKER that died. Owns: the slots (soft); resumes the journal of kept outputs at birth.
/// Supervised by: WORK_SUP.
class worker_pool_state {
public:
  using interface = worker_pool_self_actor;
  static constexpr const char* name = "worker-pool";

  /// The order for a WORKER of this name; benchmarks put another class in its place.
  using worker_maker = std::function<rt::child_spec(std::string label, rt::child_options, const worker_state::config&,
                                                    const worker_state::peers&, job, nonce, std::optional<store::kept_entry>)>;
  static rt::child_spec make_worker(std::string label, rt::child_options, const worker_state::config&,
                                    const worker_state::peers&, job, nonce, std::optional<store::kept_entry>);

  struct config {
    worker_state::config worker;
    session_id session; ///< of this process
    coppice::incarnation born;
    std::uint32_t slots = 1;
    std::uint32_t io_slots = 4;
    machine_share share = {};
    reserve_settings reserve = {};
    pressure_settings pressure = {};
    std::vector<std::filesystem::path> disks = {}; ///< of store and state
    std::filesystem::path drain_mark = {};         ///< see set_drain_mark()
    std::string limits_kept = {}; ///< by what means, for people
    std::chrono::milliseconds room_interval{1'000}; ///< between measurements of what the machine has left
    std::vector<std::string> systems, features, mandatory_features = {};
    std::string version = {}; ///< of the software, for people
    std::string http_url = {}; ///< how others reach this machine's CACHE_SERVER; empty: they do not
    std::chrono::milliseconds offer_interval{5'000}; ///< also between looks at the locks of this session
    std::chrono::milliseconds worker_timeout{3'600'000}; ///< in which a WORKER must have kept its outputs
    const rt::directory* directory;
    std::string workers_path; ///< of WORKERS_SUP
    std::string uploads_path = {}; ///< of UPLOADS_SUP, where each STORE_UPLOADER has the name of its WORKER
    worker_maker make = make_worker;
    event_port events = {};
  };
  worker_pool_state(rt::self<interface>* self, config c, worker_state::peers peers,
                    std::vector<offers_actor> allocators, rt::supervisor_actor workers);
  interface::behavior_type make_behavior();

private:
  struct occupant {
    lock_watcher_actor worker;
    nonce who;
    bool counts = true; ///< it holds a slot; not so while it only uploads
    bool io_bound = false; ///< which kind of slot
    capacity takes = {};   ///< while it counts
    fence token = {};      ///< under which its job was placed; none if it was born before this incarnation
  };
  caf::result<bool> assign(job& j);
  void start(job j, const nonce& who, std::optional<store::kept_entry> kept, std::function<void(caf::error)> told);
  void on_present(const inhash& key, const occupant& says);
  bool has_workers() const;
  void on_down(const caf::down_msg& down);
  /// The WORKER of that nonce, for a job placed under that token, is dead.
  void release_dead(const inhash& key, fence placed, const nonce& who, const std::string& why);
  void release(const inhash& key, fence token, const std::string& why);
  void read_kept();
  void on_kept(const store::kept_listing* kept, const caf::error& e);
  void resume(const store::kept_listing& kept, std::map<inhash, nonce> orphans);
  void reconcile();
  void put(const inhash& key, occupant o);
  void drop(const inhash& key);
  void tell_busy();
  /// Offers once all mail that is here now is read: much of it changes the slots.
  void offer_soon();
  void offer_slots();
  void measure();
  void on_measured(const machine_room& now, const caf::error& e);
  void take_measure(const machine_room& now);
  /// Ordinary builds; [1] those that are io_bound.
  std::array<room::fit, 2> fitting() const;
  // orders of operators
  caf::result<ledger::done> drain(const drain_node& order);
  void on_drained(std::uint64_t order, const machine_room& now, const caf::error& e);
  caf::result<ledger::done> stop();
  void stop(const occupant& o);
  void answer_stops();
  caf::result<partial_outputs> list_partials(const get_partials& q);
  void on_listed(std::uint64_t question, partial_outputs& found, const caf::error& e);
  caf::result<ledger::done> retry_partial_now(const inhash& key);
  caf::result<ledger::done> drop(const drop_partial& order);
  std::string upload_path(const inhash& key) const;

  rt::self<interface>* self_;
  config config_;
  worker_state::peers peers_;
  std::vector<offers_actor> allocators_;
  rt::supervisor_actor workers_;
  std::map<inhash, occupant> slots_;
  std::array<std::uint32_t, 2> busy_{}; ///< of slots_, those that count; [1] of those that are io_bound
  capacity reserved_;                   ///< by those
  bool offering_ = false;
  std::map<inhash, nonce> orphans_; ///< kept outputs whose WORKER died, and what its lock is held by
  std::map<inhash, nonce> resuming_; ///< those that the journal is being read for
  bool reading_ = false;
  bool died_building_ = false; ///< some WORKER since the journal was read last
  std::set<std::pair<inhash, fence>> unvouched_; ///< locks that nobody here answered for at the last look
  room room_;
  std::string short_of_; ///< as it was last offered
  std::uint64_t births_ = 0;
  std::map<std::uint64_t, rt::reply<ledger::done>> drains_;       ///< not yet written down
  std::map<std::uint64_t, rt::reply<partial_outputs>> listings_;  ///< not yet read
  std::uint64_t orders_ = 0;
  bool stopping_ = false;
  std::vector<rt::reply<ledger::done>> stops_; ///< answered when nothing is being built
  bool ready_ = false; ///< what was there before a crash has had time to say so
  static constexpr std::string_view stopping_text = "is being stopped";
  static constexpr std::chrono::milliseconds presence_wait{2'500};
};

} // namespace coppice::actors

namespace caf {
template <>
struct allowed_unsafe_message_type<std::shared_ptr<const coppice::store::kept_listing>> : std::true_type {};
} // namespace caf
