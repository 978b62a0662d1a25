#pragma once

#include "actors/deliver/cache_server.hpp"
#include "actors/tree.hpp"
#include "tests/sim/blobs.hpp"
#include "tests/sim/bridge.hpp"
#include "tests/sim/builders.hpp"
#include "tests/sim/ledger_disk.hpp"
#include "tests/sim/names.hpp"
#include "tests/support/scratch_dir.hpp"
#include "tests/support/world.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace coppice::sim {

/// What all nodes of a farm share, and none of them knows.
struct farm_parts {
  timeline& time;
  wires& lines;
  ledger_disk& ledger;
  blob_disk& blobs;
  actors::lease_settings lease;
  bool syncs; ///< the machines' own stores; needless where no disk forgets
  std::chrono::milliseconds retry_max{5'000};
  nanoseconds job_max{std::chrono::milliseconds{20}}; ///< how long a job of a pool may take
};

/// One process of coppiced: the whole tree over the real sessions, in a world of its own. Destroying it is a SIGKILL.
class node {
public:
  struct options {
    std::string name;
    coppice::incarnation born;
    std::filesystem::path state_dir;
    std::uint32_t slots = 1;
    std::uint64_t seed = 0;
    nanoseconds boot{0};                           ///< the machine's boot time now
    std::function<expected<void>()> reaches_store; ///< a member's: whether the hub's store answers now
    std::function<bool()> spoils;                  ///< whether what is read there now is spoilt on the way
    std::function<void()> on_words;                ///< words arrived, to be pumped
  };
  node(farm_parts& farm, machine_builders& builders, options o);
  ~node();
  node(const node&) = delete;
  node& operator=(const node&) = delete;

  bool is_hub() const { return options_.name == hub_name; }
  const std::string& name() const { return options_.name; }
  test::world& world() { return *world_; }
  /// Boot time is `boot` from now on, if it is not later already.
  void pass(nanoseconds boot) { world_->pass(caf::actor_clock::time_point{std::chrono::hours{1} + boot}); }
  /// When a timer of its actors is due, as boot time.
  std::optional<nanoseconds> next_due();
  bool can_run() const { return world_->can_run(); }
  bool pump() { return bridge_->pump(world_->clock.now()); }
  void tick() { bridge_->tick(world_->clock.now()); }
  /// Its tree gave up: init will start another process.
  bool ended() const { return ended_->has_value(); }

  const gateway_actor& gateway() const { return *tree_->gateway; }
  ledger_actor ledger() const;
  store::local_store& local() { return *local_; }
  store::kept_journal& kept() { return *kept_; }

private:
  actors::node_parts parts();

  /// Jobs take time, and end with the process.
  class slow_pool final : public rt::executor {
  public:
    slow_pool(node& home, nanoseconds longest) : home_(home), longest_(longest) {}
    bool post(std::function<void()> job) override;

  private:
    node& home_;
    const nanoseconds longest_;
  };

  farm_parts& farm_;
  const options options_;
  dice dice_;
  std::unique_ptr<store::local_store> local_;
  std::optional<store::kept_journal> kept_;
  std::unique_ptr<store::blob_store> remote_;
  std::unique_ptr<rt::process_port> processes_;
  rt::cgroup_root cgroups_{"test", {}};
  actors::bound_port http_port_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  slow_pool pool_, ledger_thread_; ///< needed until the world ends, as all above
  std::unique_ptr<test::world> world_;
  std::shared_ptr<rt::mesh> mesh_;
  std::optional<actors::node_tree> tree_;
  std::shared_ptr<std::optional<error>> ended_;
  std::optional<bridge> bridge_;
};

} // namespace coppice::sim
