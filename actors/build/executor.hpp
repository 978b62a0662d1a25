#pragma once

#include "actors/build/build_watch.hpp"
#include "actors/settings.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"
#include "runtime/process.hpp"

#include <memory>
#include <optional>
#include <string>

namespace coppice::actors {

/// What a process's end means for the build of `drv` (a full path), in Nix's words. Where the sandbox itself is to
/// blame, it is nobody's fault: infra.
build_exit describe_exit(const std::string& drv, const limit_settings& limits, const rt::process_exit& e);

/// Owns one builder's process tree and guarantees that none of it outlives its leave (INV-11).
/// Takes: stop and extend from WORKER, the exit from the process loop. Sends: exited to WORKER, once, then it ends; output to
/// LOG_RELAY; looks at what the build uses to the pool. Owns: one process. Supervised by: WORKERS_SUP, temporary: when it dies, so does its process.
class executor_state {
public:
  using interface = executor_actor;
  static constexpr const char* name = "executor";

  struct config {
    rt::process_port* processes; ///< outlives every actor
    rt::process_id process;      ///< reserved; LOG_RELAY acknowledges output under it
    rt::process_spec spec;
    std::shared_ptr<const void> keep; ///< what must exist while the process runs, e.g. the build_dir
    std::string drv;                  ///< full path, for texts
    limit_settings limits = {};       ///< quoted when one is passed
    rt::executor* pool = nullptr;     ///< looks at the build; none: nobody does
    watch_limits watch = {};
    std::filesystem::path scratch = {}; ///< what the build may write to
  };

  /// Starts the builder.
  executor_state(rt::self<interface>* self, config c, worker_actor worker, log_relay_actor relay);
  /// Kills it if it still runs.
  ~executor_state();
  executor_state(const executor_state&) = delete;
  executor_state& operator=(const executor_state&) = delete;
  interface::behavior_type make_behavior();

private:
  struct order {
    failure why;
    std::string reason;
  };
  void stop(order o, std::chrono::milliseconds grace);
  void on_exited(build_exit e);
  void on_frozen();
  void on_thawed(std::chrono::milliseconds stood);
  void look();
  void on_look(const build_look& l, const caf::error& e);

  rt::self<interface>* self_;
  config config_;
  worker_actor worker_;
  std::optional<order> stopped_; ///< the first who stopped it says why
  bool running_ = true;
  build_watch watch_;
  std::shared_ptr<std::atomic<pid_t>> process_ = std::make_shared<std::atomic<pid_t>>(0);
  bool blind_ = false; ///< the last look failed, which was said
};

} // namespace coppice::actors
