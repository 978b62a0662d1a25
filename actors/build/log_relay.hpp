#pragma once

#include "actors/build/log_text.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"
#include "runtime/process.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace coppice::actors {

/// Carries a build's output to its log file and tells the phase and the last line. What it holds is bounded by the
/// process's window: it acknowledges bytes only when they are in the file.
/// Takes: output from EXECUTOR's process, done from WORKER. Sends: progress to WORKER, at most one per
/// progress_interval. Owns: nothing that outlives it. Supervised by: WORKERS_SUP, temporary: it ends
/// with its WORKER; when it dies, EXECUTOR ends the build.
class log_relay_state {
public:
  using interface = log_relay_actor;
  static constexpr const char* name = "log-relay";

  struct config {
    rt::executor* pool;          ///< writes; outlives every actor
    rt::process_port* processes; ///< outlives every actor
    rt::process_id process;      ///< whose output it is
    std::filesystem::path file;  ///< appended to; WORKER makes it, and takes it away
    step_progress progress;      ///< sent with phase and last_line filled in
    std::chrono::milliseconds progress_interval{1'000};
  };

  log_relay_state(rt::self<interface>* self, config c, worker_actor worker);
  interface::behavior_type make_behavior();

private:
  struct log_file;
  void on_output(std::string bytes);
  void on_stored(std::uint64_t bytes, const caf::error& e);
  void write();
  void tell_progress();
  void finish();

  rt::self<interface>* self_;
  config config_;
  worker_actor worker_;
  std::shared_ptr<log_file> file_;
  log_text text_;
  std::string waiting_;       ///< not yet being written
  std::uint64_t writing_ = 0; ///< bytes
  bool failed_ = false;       ///< the file cannot be written: what follows is lost, the build goes on
  std::optional<caf::actor_clock::time_point> told_;
  bool telling_ = false; ///< a later look at the progress is on its way
  std::optional<rt::reply<std::string>> done_;
};

} // namespace coppice::actors
