#pragma once

#include "actors/events.hpp"
#include "actors/plan/closure_graph.hpp"
#include "actors/plan/progress_feed.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/clock.hpp"
#include "runtime/pool.hpp"

#include <map>
#include <optional>
#include <set>
#include <string>

namespace coppice::actors {

/// As whom the GRAPH of this request asks for locks: one of the same epoch that was restarted is the same asker.
nonce graph_nonce(const request_id& id, epoch e);

/// Under which inhash a derivation that is realised is built again for this request, to compare (reliability.md 4.12).
inhash check_key(const inhash& key, const request_id& id);

/// What a GRAPH tells itself besides what others tell it.
using graph_self_actor = graph_actor::extend<
  // INTERNAL: the closure was read, or not
  caf::reacts_to<atom::done_atom, std::shared_ptr<const closure_graph>>, caf::reacts_to<atom::failed_atom, caf::error>,
  // INTERNAL: answer the polls that have something to hear, or have waited long enough
  caf::reacts_to<atom::output_atom>,
  // INTERNAL: a delay before another try is over
  caf::reacts_to<atom::retry_atom, inhash, fence>,
  // INTERNAL: nobody polls any more
  caf::reacts_to<atom::ended_atom>>;

/// Walks one request's build graph until its roots are realised or cannot be.
/// Takes: changed rows, progress, waiting, poll, stop. Sends: acquire, watch, release to LOCK_MANAGER, place, withdraw
/// to ALLOCATOR, reads and T14 to LEDGER, follow to OBSERVATORY. Owns: the PLAN of one request (soft: re-made from the
/// closure and the ledger's rows).
/// Supervised by: GRAPH_SUP, transient; its deaths cost its request, never GRAPH_SUP.
class graph_state {
public:
  using interface = graph_self_actor;
  static constexpr const char* name = "graph";

  struct peers {
    ledger_actor ledger;
    lock_manager_actor locks;
    allocator_actor allocator;
    observatory_actor observatory;
    std::optional<substituter_actor> substituter; ///< if there are upstream caches
  };
  struct config {
    store::blob_store* blobs;
    rt::executor* pool;
    const rt::clock* clock;
    std::chrono::milliseconds repeat_interval{5'000}; ///< between repetitions of what was asked
    std::chrono::milliseconds linger{30'000};         ///< it answers polls for so long after the request is over
    std::chrono::milliseconds poll_delay{40};         ///< news are collected for so long before a poll is answered
    std::size_t acquires_max = 256;                   ///< T5 on their way at once
    std::size_t queued_max = 2'048; ///< locks held without a worker, for each lane; further nodes wait here, unlocked
    std::size_t keys_per_read = 4'096;                ///< inhashes in one read of the ledger
    bool fail_unplaceable = false;                    ///< see plan::options
    std::chrono::milliseconds retry_first{1'000}; ///< see plan::options
    std::chrono::milliseconds retry_max{60'000};
    event_port events = {};
  };

  graph_state(rt::self<interface>* self, config c, peers p, ledger::request_row request, coppice::epoch epoch);
  interface::behavior_type make_behavior();

private:
  /// Nodes that ask for the same of a machine: what one lane lacks holds up no other one.
  struct lane {
    std::set<std::pair<std::int64_t, std::uint32_t>> ready; ///< to be acquired: most urgent first, by node
    std::size_t acquiring = 0;
  };
  struct poll {
    poll_request what;
    rt::boot_clock::time_point due;
    rt::reply<request_progress> out;
  };

  void load();
  void load(const std::string& key);
  void load_again_later(const error& e);
  void on_not_loaded(const error& e);
  void begin(std::shared_ptr<const closure_graph> g);
  void look_at_roots();
  void plan_it(std::vector<plan_node> nodes);
  void compare_roots(const std::vector<ledger::lock_state>& rows);
  void on_rows(const std::vector<ledger::lock_state>& rows);
  void perform(plan::effects effects);
  void say_doing();
  void ask(std::vector<inhash> keys);
  void check_sources(std::vector<std::uint32_t> wanted);
  void hear(std::vector<ledger::lock_state> rows);
  bool is_sought_upstream(const ledger::lock_state& row, std::vector<inhash>& fresh);
  void seek(const std::vector<inhash>& keys);
  void ask_upstream(const std::vector<inhash>& keys, std::vector<nix::store_path> paths, upstream_paths known);
  void not_sought(const std::vector<inhash>& keys, const error& e);
  void on_upstream(const std::vector<inhash>& keys, const upstream_paths& answer);
  void substitute(std::uint32_t node);
  void adopt(std::uint32_t node);
  void on_not_substituted(const inhash& key, const error& e);
  void complain(const std::vector<std::string>& troubles);
  void pump_acquires();
  void acquire(std::uint32_t node, lane& in);
  void place(const plan::place& p);
  std::vector<heavy_input> heavy_inputs(const job& j) const;
  void release(std::uint32_t node, fence token);
  void tell(step_event e);
  void publish(const step_event& e);
  void get_ready(std::uint32_t node);
  void finish(request_result result);
  void settle(const request_result& result);
  request_result make_result(request_state state) const;
  void stop();
  void repeat();
  void watch_awaited();
  caf::result<request_progress> on_poll(poll_request& p);
  void answer_polls();
  request_progress answer_to(const poll_request& p) const;
  bool has_news(const poll_request& p) const;
  void wake_polls();
  void on_waiting(const waiting& w);
  step_answer explain(const explain_query& q) const;
  step_view view_of(std::uint32_t node) const;
  std::optional<std::uint32_t> find_node(const nix::store_path& path) const;
  lock_watcher_actor me() { return self_->stable(); }

  rt::self<interface>* self_;
  config config_;
  peers peers_;
  ledger::request_row request_;
  coppice::epoch epoch_;
  coppice::nonce nonce_;
  std::shared_ptr<const closure_graph> closure_;
  std::optional<plan> plan_;
  std::map<std::uint32_t, std::vector<realised_output>> compare_; ///< nodes built again, and what is registered of them

  bool loading_ = false;
  rt::boot_clock::time_point load_again_; ///< not before, when it is not loading
  std::chrono::milliseconds load_delay_;  ///< after the next time that it cannot be read; grows up to retry_max
  std::optional<std::vector<std::uint32_t>> unchecked_; ///< nodes whose sources are being looked up

  std::map<inhash, ledger::lock_state> sought_upstream_; ///< rows of what is not here, held back until caches answered
  std::set<inhash> not_upstream_;                        ///< what they do not have, or could not give
  std::map<inhash, unsigned> substitutions_;             ///< those that somebody's death ended, by times
  std::set<std::uint32_t> unadopted_;                    ///< nodes whose T19 was not answered
  std::set<std::string> complaints_;                     ///< told already
  std::map<inhash, std::string> unplaceable_;            ///< why no machine can take it, as it was told
  std::map<inhash, rt::boot_clock::time_point> retry_at_; ///< ends of delays

  std::vector<lane> lanes_; ///< never changes its size once the plan is made
  std::size_t acquiring_ = 0;
  std::optional<request_result> wanted_result_; ///< T14 was asked for and not answered
  std::optional<request_result> result_;        ///< as the ledger stored it

  std::vector<farm_event> news_; ///< of steps, until the present effects are performed
  progress_feed feed_;
  std::string waits_for_; ///< why nothing of it is started
  std::vector<poll> polls_;
  bool waking_ = false;
};

} // namespace coppice::actors
