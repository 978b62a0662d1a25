#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"
#include "store/blob_store.hpp"
#include "store/local_store.hpp"
#include "store/upstream/upstream.hpp"

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <set>

namespace coppice::actors {

/// Makes inputs present and pinned in the local store, each once.
/// Takes: fetch from WORKERs, SUBSTITUTER. Sends: blocking work to the pool, downloads from upstream to a pool of
/// their own; reads of paths, and which blobs are gone, to LEDGER; what it does not know to SUBSTITUTER. Owns: downloads
/// in flight. Pins belong to whom they are given (INV-20): they outlive the FETCHER, and no one else.
/// Supervised by: WORK_SUP.
class fetcher_state {
public:
  using interface = fetcher_actor;
  static constexpr const char* name = "fetcher";

  struct config {
    store::local_store* local;
    store::blob_store* blobs;
    rt::executor* pool;
    std::size_t downloads_max = 8; ///< at once from the own store, and as many from upstream; further ones wait
    store::upstream_port* upstream = nullptr; ///< the caches of others; null: there are none
    rt::executor* upstream_pool = nullptr; ///< their downloads may take long, and must not hold up anything else
  };
  fetcher_state(rt::self<interface>* self, config c, ledger_actor ledger,
                std::optional<substituter_actor> substituter = std::nullopt);
  interface::behavior_type make_behavior();

private:
  /// One request: paths known to be needed, those among them that are not here yet, and those that are nowhere.
  struct order {
    std::vector<nix::store_path> roots;
    rt::reply<fetched> out;
    std::set<nix::store_path> seen = {}, absent = {};
    std::vector<nix::store_path> missing = {};
    std::string why = {}; ///< the first of them is missing
    bool asking = false;  ///< what the absent ones refer to is not known yet
  };
  void look(std::uint64_t id, std::vector<nix::store_path> paths);
  void on_infos(std::uint64_t id, const std::vector<nix::store_path>& asked, const std::vector<path_info>& infos);
  void on_upstream(std::uint64_t id, const std::vector<nix::store_path>& asked, const upstream_paths& answer);
  void download(const path_info& info, bool upstream);
  void pump(bool upstream);
  void on_stored(const nix::store_path& path, const caf::error& e);
  void on_lost(const path_info& info, const error& why);
  std::vector<std::uint64_t> waiting_for(const nix::store_path& path) const;
  void check(std::uint64_t id);
  void fail(std::uint64_t id, error e);
  void miss(std::uint64_t id, const nix::store_path& path, const std::string& why);
  void finish(std::uint64_t id);

  rt::self<interface>* self_;
  config config_;
  ledger_actor ledger_;
  std::optional<substituter_actor> substituter_;
  std::map<std::uint64_t, order> orders_;
  std::map<std::uint64_t, rt::reply<fetched>> pinning_; ///< orders whose paths are here and are being pinned
  std::uint64_t next_ = 0;
  struct source {
    path_info info;
    bool upstream;
  };
  std::map<nix::store_path, source> infos_; ///< of what is downloaded or waits for it
  struct lane {
    std::set<nix::store_path> running;
    std::deque<nix::store_path> waiting;
  };
  std::array<lane, 2> lanes_; ///< [1] from upstream: what trickles in from there must not hold up the own store's
};

} // namespace coppice::actors
