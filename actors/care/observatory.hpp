#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/ref.hpp"

#include <map>
#include <set>

namespace coppice::actors {

/// Knows the status of every actor and what every build is doing; restarts nobody.
/// Takes: progress from WORKERs, follow from GRAPHs, tree, kill, attempts, locks, durations, failures, forget from
/// clients. Sends: progress to GRAPHs that follow, reads and forget_failures to LEDGER. Owns: who follows what (soft).
/// Supervised by: ROOT.
class observatory_state {
public:
  using interface = observatory_actor;
  static constexpr const char* name = "observatory";

  struct config {
    node_id node;
    const rt::directory* directory;
    std::size_t followed_max = 100'000; ///< inhashes followed; further ones are shown without progress
  };
  observatory_state(rt::self<interface>* self, config c, ledger_actor ledger);
  interface::behavior_type make_behavior();

private:
  void on_progress(const step_progress& p);

  rt::self<interface>* self_;
  config config_;
  ledger_actor ledger_;
  struct followed {
    std::set<graph_actor> graphs;
    step_progress last;
  };
  std::map<inhash, followed> followed_;
  std::set<graph_actor> known_; ///< monitored, each once
};

} // namespace coppice::actors
