#pragma once

#include "actors/plan/graph.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/supervisor.hpp"

#include <map>

namespace coppice::actors {

/// Owns the requests of this node, and adopts those whose owner died.
/// Takes: open from GATEWAY, find, changed requests from LEDGER, ends of GRAPHs. Sends: T4 and, for a request that no
/// GRAPH survives, T14 to LEDGER, children to GRAPH_SUP, stop to GRAPHs, releases of locks that nobody wants.
/// Owns: which requests are ours (soft: re-made by adopting again, which answers the same epoch).
/// Supervised by: COORD_SUP.
class graph_keeper_state {
public:
  using interface = graph_keeper_actor;
  static constexpr const char* name = "graph-keeper";

  struct config {
    graph_state::config graph;
    session_id me; ///< of this process
    const rt::directory* directory;
    std::string graphs_path; ///< of GRAPH_SUP
    std::chrono::milliseconds adopt_scan{10'000}; ///< between looks for requests that nobody owns
    std::size_t graph_deaths_max = 8; ///< more of one request's within the window of GRAPH_SUP, and the request fails
  };
  graph_keeper_state(rt::self<interface>* self, config c, session_actor session, graph_state::peers peers,
                     rt::supervisor_actor graphs);
  interface::behavior_type make_behavior();

private:
  struct owned {
    graph_actor graph;
    ledger::request_row request;
    coppice::epoch epoch;
    bool retired = false; ///< its name was seen to be nobody's; why will be told next
  };

  void on_down(const caf::down_msg& down);
  void keep(const graph_actor& graph, const ledger::request_row& row, epoch e);
  void give_up(const request_id& id);
  static std::string name_of(const ledger::request_row& row, epoch e);
  std::string path_of(const ledger::request_row& row, epoch e) const;
  bool known(const request_id& id) const { return graphs_.contains(id) || failing_.contains(id); }
  void scan();
  void read_open(const std::vector<ledger::lock_state>& held);
  void release_orphans(const std::vector<ledger::lock_state>& held, const std::vector<ledger::request_row>& open);
  void adopt(const ledger::request_row& row);
  void spawn(const ledger::request_row& row, epoch e);
  void read(const request_id& id);

  rt::self<interface>* self_;
  config config_;
  session_actor session_;
  graph_state::peers peers_;
  rt::supervisor_actor graph_sup_;
  std::map<request_id, owned> graphs_;
  std::map<request_id, ledger::finish> failing_; ///< those whose GRAPH died too often, until LEDGER knows
  std::map<request_id, epoch> adopting_;
};

} // namespace coppice::actors
