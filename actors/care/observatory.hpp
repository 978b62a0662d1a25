#pragma once

#include "actors/events.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/clock.hpp"
#include "runtime/ref.hpp"

#include <map>
#include <set>

namespace coppice::actors {

/// Knows the status of every actor, what every build is doing and what happened; restarts nobody.
/// Takes: progress from WORKERs, follow from GRAPHs, tree, events, kill, attempts, locks, durations, failures, forget
/// from clients. Sends: progress to GRAPHs that follow, reads and forget_failures to LEDGER. Owns: who follows what (soft).
/// Supervised by: ROOT.
class observatory_state {
public:
  using interface = observatory_actor;
  static constexpr const char* name = "observatory";

  struct config {
    node_id node;
    const rt::directory* directory;
    std::size_t followed_max = 100'000; ///< inhashes followed; further ones are shown without progress
    event_port events;
    const rt::clock* clock = nullptr;
    std::chrono::milliseconds event_delay{40}; ///< events are collected for so long before who waits is answered
    std::optional<progress_actor> hub = {};    ///< on a member: where the graphs are that want to hear of its builds
  };
  observatory_state(rt::self<interface>* self, config c, ledger_actor ledger);
  interface::behavior_type make_behavior();

private:
  /// Who waits for events.
  struct follower {
    follow_events what;
    rt::boot_clock::time_point due;
    rt::reply<event_page> out;
  };
  /// LEDGER's answer.
  template <class Answer, class Tx>
  caf::result<Answer> pass_on(Tx tx);
  void on_progress(const step_progress& p);
  caf::result<event_page> follow(const follow_events& q);
  event_page page(const follow_events& q) const;
  void await_events();
  void answer_followers();

  rt::self<interface>* self_;
  config config_;
  ledger_actor ledger_;
  struct followed {
    std::set<graph_actor> graphs;
    step_progress last;
  };
  std::map<inhash, followed> followed_;
  std::set<graph_actor> known_; ///< monitored, each once
  std::vector<follower> followers_;
};

} // namespace coppice::actors
