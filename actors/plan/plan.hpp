#pragma once

#include "messages/admin.hpp"
#include "messages/client.hpp"
#include "messages/ledger.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace coppice::actors {

/// A derivation of the closure, as the plan sees it.
struct plan_node {
  nix::store_path drv;
  inhash key;
  std::vector<std::uint32_t> inputs; ///< indices of its input derivations
  std::string refused;               ///< why it can never be built here; empty if it can
  std::uint32_t lane = 0;            ///< nodes of one lane ask for the same of a machine
};

struct plan_root {
  std::uint32_t node = 0;
};

/// The state of one request's build graph: what is there, what must be built, what may start now. Decides; neither
/// asks nor acts: events in, effects out, and every fact it acts on is a row of the ledger. Events may be repeated
/// and may come late (INV-10).
///
/// A node's life: unknown → asked → reused, or wanted → (inputs done) ready → acquiring → queued → building → built,
/// or failed, or not_attempted. After a try that came to nothing it is delayed before it is ready again. Nodes with one
/// inhash share one job.
class plan {
public:
  using life = step_life;
  /// Are these inhashes realised? Answer by on_rows().
  struct ask {
    std::vector<inhash> keys;
  };
  /// Everything that must be built is known: these nodes. Answer by begin().
  struct discovered {
    std::vector<std::uint32_t> wanted;
  };
  /// T5 for this node's inhash. Answer by on_granted(), on_held() or on_acquire_failed().
  struct acquire {
    std::uint32_t node;
  };
  /// The lock is ours: find a worker. `again` if that was said before, and nothing was heard of it.
  struct place {
    std::uint32_t node;
    fence token;
    bool again = false;
  };
  /// The lock is ours and no longer needed: withdraw and T7.
  struct release {
    std::uint32_t node;
    fence token;
  };
  /// A root that upstream caches have: make it ours. Ends with its row being realised, or by on_not_substituted().
  struct substitute {
    std::uint32_t node;
  };
  /// Call on_retry() with these in `delay`.
  struct retry_later {
    inhash key;
    fence token;
    std::chrono::milliseconds delay;
  };
  /// Another graph's job is wanted here, too: with this request's priority.
  struct lend {
    inhash key;
  };
  /// Something to tell the client; `seq` is filled in by whoever keeps the events.
  struct tell {
    step_event event;
  };
  /// The request is over; only releases of locks that are granted late may follow.
  struct over {
    request_state state;
  };
  using effect = std::variant<ask, discovered, acquire, place, release, substitute, retry_later, lend, tell, over>;
  using effects = std::vector<effect>;

  struct options {
    bool keep_going = false;
    std::uint64_t request_number = 0; ///< older failures than this request do not count against it
    /// After a try that came to nothing; doubled with each further one, up to retry_max.
    std::chrono::milliseconds retry_first{1'000};
    std::chrono::milliseconds retry_max{60'000};
    /// A step that no machine can take fails, instead of waiting for a machine that can.
    bool fail_unplaceable = false;
  };

  /// `nodes` form no cycle (store::unpack_closure has seen to that).
  plan(std::vector<plan_node> nodes, std::vector<std::uint32_t> roots, options o);

  /// Begins the discovery from the roots.
  effects start();
  /// The wanted nodes may be built now, except these (by node, with the reason): their sources are nowhere.
  effects begin(const std::map<std::uint32_t, std::string>& impossible = {});

  /// Rows as the ledger has them: the answer to `ask`, or news from a watch.
  effects on_rows(const std::vector<ledger::lock_state>& rows);
  /// All outputs wanted of what is asked for are in upstream caches: nothing is built for it, its inputs do not matter.
  effects on_upstream(const inhash& key, const std::vector<realised_output>& outputs);
  /// A root could not be made ours: whether it exists is asked anew.
  effects on_not_substituted(const inhash& key);
  /// T5 was not granted: the row says why. A free one has failed, after the request was submitted or too often before.
  effects on_held(const ledger::lock_state& row);
  /// T5 was granted.
  effects on_granted(const inhash& key, fence token);
  /// T5 was not answered; it will be asked again by the next repeat().
  effects on_acquire_failed(const inhash& key);
  /// The delay of retry_later is over.
  effects on_retry(const inhash& key, fence token);
  /// No machine that is there can ever take it; `why` says so, and is empty once one can. `offline`: one could that is
  /// not there just now; then nothing fails for it.
  effects on_unplaceable(const inhash& key, const std::string& why, bool offline = false);
  /// The request ended elsewhere (cancelled, say): lets go of what is held.
  effects stop();
  /// Inputs of `user` are gone although they were told to be there, in a store of ours or upstream. `producers` are the
  /// nodes that they are outputs of, direct inputs of `user` or not; none for sources. What has not begun to be built
  /// waits until existence, and then sources, were asked again; what must be built again is.
  effects on_vanished(const inhash& user, const std::vector<std::uint32_t>& producers);
  /// Asks again for what should have happened by now: un-answered acquires, placements of what is still queued.
  effects repeat();

  /// Rows that were looked at, to be given to on_rows() next: changes of what is ours are told, so that news in them are
  /// late, or lost.
  void on_looked(const std::vector<ledger::lock_state>& rows);
  /// This row was told: late, if it was seen before.
  void on_told(const ledger::lock_state& row);
  /// How many changes were found by looking and not told since the last call.
  std::uint64_t take_lost();

  /// Inhashes whose rows matter now: asked, queued, building.
  std::vector<inhash> awaited() const;
  /// Whether it exists is being asked.
  bool is_asked(const inhash& key) const;
  const step_counts& counts() const { return counts_; }
  bool is_over() const { return over_; }
  std::uint64_t built() const { return counts_.built; }
  std::uint64_t reused() const { return counts_.reused; }

  const plan_node& node(std::uint32_t i) const { return nodes_[i]; }
  const std::vector<plan_node>& nodes() const { return nodes_; }
  const std::vector<std::uint32_t>& roots() const { return roots_; }
  /// The nodes that share this inhash.
  const std::vector<std::uint32_t>& nodes_of(const inhash& key) const;
  /// Steps above this one on the longest way to a root: the more, the more urgent.
  std::uint32_t critical_path(std::uint32_t i) const { return heights_[i]; }
  /// Nodes of this lane whose lock is ours and that have no worker.
  std::size_t queued(std::uint32_t lane) const { return queued_[lane]; }
  step_state state(std::uint32_t i) const;
  step_life life_of(std::uint32_t i) const { return steps_[i].at; }
  bool is_upstream(std::uint32_t i) const { return steps_[i].upstream; }
  /// The nodes that it waits for, and those that failed it.
  std::vector<std::uint32_t> lacking(std::uint32_t i) const;
  failure failure_of(std::uint32_t i) const { return steps_[i].kind; }
  /// The realised outputs of a finished node.
  const std::vector<realised_output>& outputs(std::uint32_t i) const;
  /// The machine that built them; empty if none of the farm did.
  const node_id& builder(std::uint32_t i) const { return jobs_.at(nodes_[i].key).builder; }
  /// Steps that failed by themselves, in the order they did, at most failures_told_max.
  const std::vector<failed_step>& failures() const { return failures_; }

private:
  struct step {
    life at = life::unknown;
    std::uint32_t waits = 0; ///< inputs not done
    std::uint32_t retries = 0; ///< tries that came to nothing, and for which no delay was begun yet
    bool was_wanted = false;
    bool is_root = false;
    bool upstream = false; ///< nobody builds it: it is fetched from an upstream cache
    bool told_building = false;
    failure kind = failure::none;
    fence token;
  };
  struct job {
    std::vector<std::uint32_t> nodes;
    std::vector<realised_output> outputs;
    node_id builder = {}; ///< of the outputs, if a machine of the farm is known to be
  };

  void on_existence(std::uint32_t i, const ledger::lock_state& row, std::vector<inhash>& asks, effects& out);
  void on_awaited(std::uint32_t i, const ledger::lock_state& row, effects& out);
  void want(std::uint32_t i, std::vector<inhash>& asks);
  void ask_for(std::uint32_t i, std::vector<inhash>& asks);
  void lose(std::uint32_t producer, std::vector<inhash>& asks, effects& out);
  bool want_again(std::uint32_t i, effects& out);
  void wait_for(std::uint32_t user, std::uint32_t producer);
  void get_ready(std::uint32_t i, effects& out);
  void finish_step(std::uint32_t i, effects& out);
  void delay(std::uint32_t i, effects& out);
  void fail_step(std::uint32_t i, failed_step why, effects& out);
  failed_step failed_as(std::uint32_t i, const ledger::failure_record& failed) const;
  void abandon_dependants(std::uint32_t i, effects& out);
  void move(std::uint32_t i, life to);
  template <class Each>
  void for_dependants(std::uint32_t i, Each each) {
    for (auto d : dependants_[i]) each(d);
    if (late_dependants_.empty()) return;
    if (auto late = late_dependants_.find(i); late != late_dependants_.end())
      for (auto d : late->second) each(d);
  }
  void end(request_state state, effects& out);
  void check_discovered(effects& out);
  void check_over(effects& out);
  step_event event_of(std::uint32_t i) const;
  bool busy(const job& j) const;
  std::uint64_t* count_of(life l, bool built_here);

  std::vector<plan_node> nodes_;
  std::vector<std::uint32_t> roots_;
  options options_;
  std::vector<step> steps_;
  std::vector<std::vector<std::uint32_t>> dependants_;
  /// Dependants by more than their derivation's inputs: they lacked something out of an input's closure.
  std::map<std::uint32_t, std::vector<std::uint32_t>> late_dependants_;
  std::vector<std::uint32_t> heights_;
  std::vector<std::size_t> queued_; ///< by lane
  std::map<inhash, job> jobs_;
  std::size_t asking_ = 0; ///< nodes whose existence is being asked
  bool discovering_ = true, begun_ = false, over_ = false, any_failed_ = false;
  std::size_t open_ = 0; ///< nodes that are wanted and not at their end
  step_counts counts_;
  std::vector<failed_step> failures_;
  std::map<inhash, fence> looked_; ///< changes found by looking, and not told yet
};

} // namespace coppice::actors
