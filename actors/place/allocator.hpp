#pragma once

#include "actors/events.hpp"
#include "actors/place/placement.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"

#include <map>
#include <optional>

namespace coppice::actors {

/// Matches queued jobs with free, fitting slots.
/// Takes: place, lend, withdraw from GRAPHs; offer from WORKER_POOLs. Sends: assign, prefetch to WORKER_POOLs, waiting to GRAPHs.
/// Owns: the queue and the last offer of each machine (soft: graphs and pools repeat).
/// Supervised by: COORD_SUP.
class allocator_state {
public:
  using interface = allocator_actor;
  static constexpr const char* name = "allocator";

  struct config {
    placement::options limits;
    const rt::clock* clock;
    std::chrono::milliseconds tick{1'000};
    event_port events = {};
    std::chrono::milliseconds corrections_told_every{60'000}; ///< at most: after a crash all that waits is found again
  };
  allocator_state(rt::self<interface>* self, config c);
  interface::behavior_type make_behavior();

private:
  void perform(placement::effects& effects);
  void assign(const placement::assign& a);
  void recheck(const placement::recheck& r);
  void tell_shortage();
  void tell_queue();
  void tell_corrections();
  void on_down(const caf::down_msg& down);

  rt::self<interface>* self_;
  config config_;
  placement placement_;
  std::uint64_t corrections_told_ = 0;
  std::optional<rt::boot_clock::time_point> corrections_told_at_;
  std::map<node_id, assignee_actor> pools_;
  std::map<node_id, caf::actor_addr> watched_; ///< the pools whose loss will be told
  std::map<inhash, graph_actor> graphs_; ///< whom to tell why a job waits
  std::map<caf::actor_addr, graph_actor> told_; ///< who heard that its jobs wait for a machine to have room
};

} // namespace coppice::actors
