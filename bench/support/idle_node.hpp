#pragma once

#include "actors/deliver/cache_server.hpp"
#include "actors/tree.hpp"
#include "bench/support/memory_blobs.hpp"
#include "runtime/bridge.hpp"
#include "runtime/pool.hpp"
#include "runtime/process_loop.hpp"

#include <caf/actor_system_config.hpp>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

namespace coppice::bench {

/// What a node of idle_farm is in a farm of several.
struct idle_link {
  rt::key_pair own;
  rt::authorized_keys allowed = {}; ///< who may dial it
  std::optional<rt::node_address> hub = {};
};

/// A node whose WORKERs build nothing, and whose blobs are in memory. Runs from construction on.
class idle_node {
public:
  struct options {
    std::filesystem::path dir; ///< for the ledger; on a real disk
    std::string name;
    std::uint32_t slots = 256; ///< builds at once; 0: it builds nothing
    bool events = true;
    std::optional<idle_link> link = {};
    std::function<std::unique_ptr<store::ledger_backend>()> open_ledger = {}; ///< empty: SQLite's in `dir`
  };
  /// Throws std::runtime_error if it cannot run.
  explicit idle_node(const options& o);
  ~idle_node();
  idle_node(const idle_node&) = delete;
  idle_node& operator=(const idle_node&) = delete;

  actors::node_tree& tree() { return *tree_; }
  caf::actor_system& system() { return system_; }
  const rt::directory& directory() const { return directory_; }
  memory_blobs& blobs() { return blobs_; }
  /// Where other nodes dial it; waits until it listens.
  std::string endpoint();
  /// What all outputs are made of; has to be registered in the ledger in its first generation.
  static const blob_id output_blob;

private:
  static std::uint32_t cpus() { return std::max(1u, std::thread::hardware_concurrency()); }
  struct scheduler_config : caf::actor_system_config {
    scheduler_config() {
      set("scheduler.policy", caf::atom("sharing"));
      set("scheduler.max-threads", std::size_t{cpus()});
    }
  };
  std::filesystem::path dir_;
  memory_blobs blobs_;
  std::unique_ptr<store::local_store> local_;
  store::kept_journal kept_;
  rt::cgroup_root cgroups_{"bench"};
  actors::bound_port http_port_{};
  rt::real_clock clock_;
  rt::process_loop processes_;
  rt::pool pool_, ledger_thread_;
  scheduler_config config_;
  caf::actor_system system_{config_};
  rt::directory directory_{system_};
  std::shared_ptr<rt::mesh> mesh_;
  std::optional<actors::node_tree> tree_;
  std::optional<bridge_actor> bridge_;
  caf::strong_actor_ptr root_;
};

} // namespace coppice::bench
