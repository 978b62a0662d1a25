#pragma once

#include "actors/build/attempt.hpp"
#include "actors/build/build_dir.hpp"
#include "actors/settings.hpp"
#include "messages/interfaces.hpp"
#include "nix/derivation.hpp"
#include "runtime/cgroup.hpp"
#include "runtime/actor.hpp"
#include "runtime/clock.hpp"
#include "runtime/pool.hpp"
#include "runtime/process.hpp"
#include "runtime/supervisor.hpp"
#include "store/blob_store.hpp"
#include "store/kept.hpp"
#include "store/local_store.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>

namespace coppice::actors {

/// Carries one job under one token from start to commit.
/// Takes: changed rows, exited from EXECUTOR, progress from LOG_RELAY, packed, stored, failed from STORE_UPLOADER.
/// Sends: lease to SESSION, start, commit, fail, release, partial, reclaim to LOCK_MANAGER, fetch to FETCHER, ended to
/// WORKER_POOL, progress to OBSERVATORY. Owns: one ATTEMPT, its scratch directory, its log.
/// Supervised by: WORKERS_SUP, temporary: a new attempt is a new token.
class worker_state {
public:
  using interface = worker_actor;
  static constexpr const char* name = "worker";

  /// An attempt's outputs, to be packed and put.
  struct upload_order {
    std::string name; ///< of the STORE_UPLOADER
    worker_actor worker;
    nix::store_path drv;
    std::vector<realised_output> outputs;          ///< names and paths; complete if `registered`
    std::vector<std::filesystem::path> trees;      ///< where they lie now
    std::vector<std::filesystem::path> kept_trees; ///< where they lie once registered
    std::set<nix::store_path> candidates;          ///< what they may refer to
    std::optional<std::pair<nix::content_method, nix::hash_algo>> content; ///< the hash that a fixed output declares
    bool registered = false;
    inhash key;
    fence token; ///< of the attempt
  };
  struct peers {
    ledger_actor ledger;
    lock_manager_actor locks;
    session_actor session;
    fetcher_actor fetcher;
    observatory_actor observatory;
    worker_pool_actor pool;
    rt::supervisor_actor workers; ///< EXECUTOR and LOG_RELAY are started beside their WORKER
    /// Starts a STORE_UPLOADER; given by actors/tree, which alone knows both stages.
    std::function<void(rt::self<interface>*, upload_order)> upload;
  };
  struct config {
    node_id node;
    rt::process_port* processes;
    rt::executor* pool;
    rt::executor* watch_pool; ///< for looks at builds and the machine, and for logs
    const rt::clock* clock;
    store::blob_store* blobs;
    store::local_store* local;
    store::kept_journal* kept;
    const rt::cgroup_root* cgroups;
    std::filesystem::path log_dir;
    std::filesystem::path etc_dir; ///< build_dir_config::etc_dir
    std::filesystem::path exec_program;
    std::filesystem::path jail_program; ///< rt::process_watchdog's
    std::chrono::milliseconds freeze_max{120'000}; ///< so long a build may stand still without a lease
    sandbox_settings sandbox;
    capacity takes; ///< of the machine, while it holds a slot
    std::optional<rt::process_user> run_as;
    limit_settings limits;
    std::chrono::milliseconds tick{1'000};
    std::chrono::milliseconds log_wait{2'000}; ///< so long an attempt waits for its log to be stored; looked at each tick
    unsigned ticks_per_look = 5; ///< ticks between looks at the row, for changes that nobody told of
  };

  worker_state(rt::self<interface>* self, config c, peers p, job j, nonce who, std::optional<store::kept_entry> kept);
  ~worker_state();
  interface::behavior_type make_behavior();

private:
  using found_outputs = tl::expected<std::map<std::string, std::filesystem::path>, build_fault>;
  /// Of a builder that has ended, until its outputs are found and its log is stored.
  struct ending {
    build_exit exit;
    std::string tail;
    std::shared_ptr<found_outputs> made;
    rt::boot_clock::time_point log_waits_until;
    bool collected = false, log_told = false;
  };

  void perform(attempt::effects effects);
  void on_down(const caf::down_msg& down);
  void look_at_row();
  void look_at_lease();
  void fetch();
  void start(fence token);
  void reclaim(bool built);
  void run();
  void start_log(std::shared_ptr<build_dir> dir);
  void start_executor(std::shared_ptr<build_dir> dir, rt::process_id process);
  void on_exited(build_exit e);
  void end_log(const build_exit& e, std::string tail);
  void keep_log();
  void end_building();
  void pack(bool registered);
  caf::result<ledger::done> on_packed(packed_outputs& p);
  std::optional<build_fault> fault_of(const packed_outputs& p) const;
  void keep_mismatch(const packed_outputs& p, const std::string& reason);
  void drop_damaged();
  /// Whether the outputs that the journal names are here; true if it names none.
  bool keeps_outputs() const;
  void compare(const std::vector<realised_output>& outputs);
  void keep(const std::vector<realised_output>& outputs);
  void discard(bool committed);
  void scrap();
  caf::result<ledger::done> drop(fence token);
  void show();
  void report(std::string_view phase, std::string last_line = {}, bool over = false);
  void reject(failure kind, std::string reason);
  /// Runs blocking work on the pool; `done` on this actor with its error, or ec::none.
  void blocking(std::function<expected<void>()> work, std::function<void(const error&)> done);
  /// A transaction of this attempt; its answer moves the attempt on.
  template <class Atom, class Tx>
  void settle(Atom verb, Tx tx);
  /// How far the attempt is: an answer that comes when it has gone on says nothing.
  std::pair<attempt::stage, fence> progress() const { return {attempt_.at(), attempt_.token()}; }
  std::filesystem::path log_file() const;
  std::vector<std::string> log_keys() const;
  std::string label() const { return self_->path().substr(self_->path().rfind('/') + 1); }

  rt::self<interface>* self_;
  config config_;
  peers peers_;
  job job_;
  nonce who_;
  attempt attempt_;
  fence begun_; ///< the token when the builder was started: its log and its control group keep that name
  nix::derivation drv_;
  fetched inputs_; ///< their whole closure, once it is here
  std::shared_ptr<build_dir> dir_; ///< null before the start, and for a fixed output that is here already
  std::filesystem::path staging_;
  std::map<std::string, std::filesystem::path> trees_; ///< where the outputs lie, by name, once the builder has ended well
  std::optional<log_relay_actor> relay_;
  std::optional<executor_actor> executor_;
  std::unique_ptr<ending> ending_;
  bool log_in_hand_ = false; ///< there may be one, and LOG_KEEPER does not have it
  std::optional<rt::reply<ledger::done>> uploader_; ///< STORE_UPLOADER waits for the outputs to be kept
  std::map<std::uint64_t, std::function<void(const error&)>> work_; ///< blocking work under way
  std::uint64_t work_count_ = 0;
  std::optional<attempt::kill> killed_; ///< said to EXECUTOR, or as soon as there is one
  bool exited_ = false; ///< EXECUTOR, or its end, was heard
  bool holds_slot_ = true;
  std::uint64_t ticks_ = 0;
  attempt::stage reported_ = attempt::stage::over;
  std::string phase_;                   ///< as it was last reported
  rt::boot_clock::time_point phase_since_;
  std::uint64_t memory_bytes_ = 0;      ///< of the builder, as it was last seen; 0 if nobody looked
};

} // namespace coppice::actors
