#pragma once

#include "actors/build/fetch_plan.hpp"
#include "actors/build/fetch_queue.hpp"
#include "actors/build/fetch_work.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/clock.hpp"
#include "runtime/pool.hpp"
#include "store/upstream/upstream.hpp"

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>

namespace coppice::actors {

/// What a FETCHER tells itself besides what others tell it.
using fetcher_self_actor = fetcher_actor::extend<
    // INTERNAL: one path was unpacked, or not
    caf::reacts_to<atom::stored_atom, nix::store_path, std::shared_ptr<const fetch_report>>>;

/// Makes inputs present and pinned in the local store, each once.
/// Takes: fetch from WORKERs, SUBSTITUTER, prefetch from WORKER_POOL. Sends: blocking work to the pool, downloads from
/// upstream to a pool of their own; reads of paths, and which blobs are gone, to LEDGER; what it does not know to
/// SUBSTITUTER, on a member to that of the hub. Owns: downloads in flight, and what is remembered of the machines that
/// hold inputs (soft). Pins belong to whom they are given (INV-20): they outlive the FETCHER, and no one else.
/// Supervised by: WORK_SUP.
class fetcher_state {
public:
  using interface = fetcher_self_actor;
  static constexpr const char* name = "fetcher";

  struct config {
    store::local_store* local;
    store::blob_store* blobs;
    rt::executor* pool;
    const rt::clock* clock;
    fetch_queue::limits lanes = {};
    fetch_plan::options plan = {};
    store::held_fetch* held = nullptr;        ///< null: no other machine is asked for what it holds
    store::upstream_port* upstream = nullptr; ///< the caches of others; null: there are none
    rt::executor* upstream_pool = nullptr;    ///< their downloads may take long, and must not hold up anything else
    unsigned hub_asks_max = 120; ///< times that the hub is asked for the same, each for as long as a call may last
  };
  struct peers {
    ledger_actor ledger;
    std::optional<substituter_actor> substituter = {};
    std::optional<upstream_actor> hub = {}; ///< on a member: its SUBSTITUTER, if there is one
  };
  fetcher_state(rt::self<interface>* self, config c, peers p);
  interface::behavior_type make_behavior();

private:
  /// One request: paths known to be needed, those among them that are not here yet, and those that are nowhere.
  struct order {
    std::vector<nix::store_path> roots;
    std::optional<rt::reply<fetched>> out; ///< none: it is fetched ahead
    std::set<nix::store_path> seen = {}, absent = {};
    std::vector<nix::store_path> missing = {};
    std::string why = {};                    ///< the first of them is missing
    bool asking = false;                     ///< what the absent ones refer to is not known yet
    std::set<nix::store_path> told_hub = {}; ///< what the hub was asked to find
  };
  void prefetch(const coppice::prefetch& what);
  void look(std::uint64_t id, std::vector<nix::store_path> paths);
  void read(std::uint64_t id, const std::vector<nix::store_path>& paths, const std::vector<nix::store_path>& more = {});
  void on_infos(std::uint64_t id, const std::vector<nix::store_path>& asked, const ledger::path_infos& known,
                std::vector<nix::store_path> more);
  void ask_upstream(std::uint64_t id, const std::set<nix::store_path>& paths, const std::vector<nix::store_path>& more);
  void on_upstream(std::uint64_t id, const std::vector<nix::store_path>& asked, const upstream_paths& answer);
  void ask_hub(std::uint64_t id, const upstream_wanted& wanted, const std::vector<nix::store_path>& absent,
               const std::vector<nix::store_path>& more, unsigned asks);
  void download(const path_info& info, fetch_lane lane);
  void pump();
  void begin(const nix::store_path& path);
  void on_stored(const nix::store_path& path, const fetch_report& report);
  void on_lost(const path_info& info, const error& why);
  void forget(const nix::store_path& path);
  std::vector<std::uint64_t> waiting_for(const nix::store_path& path) const;
  void check(std::uint64_t id);
  void fail(std::uint64_t id, error e);
  void miss(std::uint64_t id, const nix::store_path& path, const std::string& why);
  void end(std::uint64_t id);
  void finish(std::uint64_t id);
  void show();

  rt::self<interface>* self_;
  config config_;
  peers peers_;
  fetch_plan plan_;
  fetch_queue queue_;
  std::map<std::uint64_t, order> orders_;
  std::map<std::uint64_t, rt::reply<fetched>> pinning_; ///< orders whose paths are here and are being pinned
  std::uint64_t next_ = 0;
  struct source {
    path_info info;
    bool upstream;
  };
  std::map<nix::store_path, source> infos_;               ///< of what is downloaded or waits for it
  std::optional<std::pair<inhash, std::uint64_t>> ahead_; ///< for which job is fetched ahead, by which order
  std::uint64_t held_bytes_ = 0, store_bytes_ = 0;
};

} // namespace coppice::actors

namespace caf {
template <>
struct allowed_unsafe_message_type<std::shared_ptr<const coppice::actors::fetch_report>> : std::true_type {};
} // namespace caf
