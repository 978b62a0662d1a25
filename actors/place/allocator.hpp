#pragma once

#include "actors/events.hpp"
#include "actors/place/known_machines.hpp"
#include "actors/place/placement.hpp"
#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"

#include <filesystem>
#include <map>
#include <memory>
#include <optional>

namespace coppice::actors {

/// What an ALLOCATOR tells itself besides what others tell it.
using allocator_self_actor = allocator_actor::extend<
    // INTERNAL: the machines that were known before were read, or not
    caf::reacts_to<atom::stored_atom, std::shared_ptr<const known_machines>, caf::error>,
    // INTERNAL: those that were known at so many comings() were written down, or not
    caf::reacts_to<atom::done_atom, std::uint64_t, caf::error>>;

/// Matches queued jobs with free, fitting slots.
/// Takes: place, lend, withdraw from GRAPHs; offer from WORKER_POOLs. Sends: assign, prefetch to WORKER_POOLs, waiting
/// to GRAPHs. Owns: the queue and the last offer of each machine (soft: graphs and pools repeat), and the file that
/// says which machines there were.
/// Supervised by: COORD_SUP.
class allocator_state {
public:
  using interface = allocator_self_actor;
  static constexpr const char* name = "allocator";

  struct config {
    placement::options limits;
    const rt::clock* clock;
    std::chrono::milliseconds tick{1'000};
    event_port events = {};
    std::filesystem::path machines_file = {};                 ///< empty: none is remembered
    rt::executor* pool = nullptr;                             ///< for that file
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
  void recall_machines();
  void recalled(const known_machines& all);
  void note_machines();
  void on_down(const caf::down_msg& down);

  rt::self<interface>* self_;
  config config_;
  placement placement_;
  std::optional<std::uint64_t> noted_; ///< the comings() that the file knows of; none while it is being read or written
  std::uint64_t corrections_told_ = 0;
  std::optional<rt::boot_clock::time_point> corrections_told_at_;
  std::map<node_id, assignee_actor> pools_;
  std::map<node_id, caf::actor_addr> watched_; ///< the pools whose loss will be told
  std::map<inhash, graph_actor> graphs_; ///< whom to tell why a job waits
  std::map<caf::actor_addr, graph_actor> told_; ///< who heard that its jobs wait for a machine to have room
};

} // namespace coppice::actors

namespace caf {
template <>
struct allowed_unsafe_message_type<std::shared_ptr<const coppice::actors::known_machines>> : std::true_type {};
} // namespace caf
