#pragma once

#include "actors/build/worker_pool.hpp"
#include "actors/settings.hpp"
#include "messages/interfaces.hpp"
#include "nix/signature.hpp"
#include "runtime/clock.hpp"
#include "runtime/curve.hpp"
#include "runtime/mesh.hpp"
#include "runtime/supervisor.hpp"
#include "store/blob_urls.hpp"
#include "store/held_fetch.hpp"
#include "store/ledger.hpp"
#include "store/upstream/upstream.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>

namespace coppice::actors {

struct bound_port;

/// What a node's actors stand on; outlives them all.
struct node_parts {
  node_settings settings;
  std::filesystem::path state_dir;
  session_info me;
  std::string version;
  std::function<std::unique_ptr<store::ledger_backend>()> open_ledger;
  store::blob_store* blobs;
  store::blob_urls* blob_urls = nullptr; ///< of the same store, if it has some
  store::local_store* local;
  store::kept_journal* kept;
  store::upstream_port* upstream = nullptr; ///< the caches of others; null: there are none
  rt::executor* upstream_pool = nullptr;    ///< for downloads from them
  rt::process_port* processes;
  rt::executor* pool;
  rt::executor* fetch_pool = nullptr; ///< for inputs from other machines, which keep a thread waiting; null: `pool`
  store::held_fetch* held = nullptr;  ///< asks other machines for what they hold; null: none is asked
  rt::executor* watch_pool = nullptr; ///< for what must not wait behind long work: looks at builds and the machine, and
                                      ///< their logs; null: `pool`
  rt::executor* ledger_thread; ///< one thread, for the ledger alone
  const rt::clock* clock;
  const rt::cgroup_root* cgroups;
  std::shared_ptr<const nix::secret_key> signing_key;
  std::optional<rt::process_user> run_as;
  std::vector<std::string> systems;
  std::map<std::string, std::string> environment; ///< the daemon's, for impureEnvVars
  std::string ca_bundle;                          ///< authorities for HTTPS; empty if the machine has none
  std::uint32_t slots = 1;
  bound_port* http_port;
  worker_pool_state::worker_maker make_worker = worker_pool_state::make_worker;
  bool keeps_events = true; ///< benchmarks see what they cost
  std::shared_ptr<rt::mesh> mesh = nullptr; ///< the other nodes; null: there are none
  node_id hub = {};                         ///< which keeps the ledger and the farm's store; empty: this one does
  std::filesystem::path authorized = {};    ///< the allow-list
  /// Tells it to the other machines on which this node may run; null: there are none.
  std::function<expected<void>(const rt::authorized_keys&)> authorize = nullptr;
};

/// The declared tree of one node (docs/architecture.md), and the handles that the outside needs.
struct node_tree {
  rt::tree root;
  std::optional<gateway_actor> gateway; ///< on a member: the hub's is asked
  observatory_actor observatory;
  std::optional<inspector_actor> inspector; ///< likewise
  cache_server_actor cache;
};

/// Declares every actor of a node that keeps the ledger, or of a member; nothing runs before root.run(). Fails for settings that make no sense.
expected<node_tree> declare_tree(rt::directory& dir, const node_parts& parts);

} // namespace coppice::actors
