#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/clock.hpp"

#include <functional>
#include <map>
#include <vector>

namespace coppice::actors {

/// Accepts a request only after it is durable, and tells its clients how it goes.
/// Takes: info, missing, submit, poll, status, cancel, log from clients through BRIDGE. Sends: T3, T15 and reads to
/// LEDGER, open and find to GRAPH_KEEPER, poll to GRAPHs. Owns: when each client was last heard (soft).
/// Supervised by: COORD_SUP.
class gateway_state {
public:
  using interface = gateway_actor;
  static constexpr const char* name = "gateway";

  struct peers {
    ledger_actor ledger;
    graph_keeper_actor keeper;
    cache_server_actor cache;
  };
  struct config {
    node_info me; ///< without the URL, which CACHE_SERVER knows
    const rt::clock* clock;
    std::chrono::milliseconds client_grace{60'000}; ///< silence after which a client counts as gone
    std::chrono::milliseconds tick{5'000};
    std::size_t clients_max = 100'000; ///< requests whose client is watched
    std::function<tickets_actor(const node_id&)> cache_of = {}; ///< CACHE_SERVER of another node; empty: there are none
  };
  gateway_state(rt::self<interface>* self, config c, peers p);
  interface::behavior_type make_behavior();

private:
  caf::result<node_info> info();
  caf::result<missing> find(const caller& who, find_missing& q);
  void find_closure(const caller& who, blob_id closure, missing found, rt::reply<missing> out);
  caf::result<accepted> submit(const caller& who, submit_request& s);
  caf::result<request_progress> poll(const poll_request& p);
  void poll_row(const poll_request& p, rt::reply<request_progress> out);
  caf::result<request_summaries> status(const get_requests& q);
  caf::result<accepted> cancel(const caller& who, const cancel_request& c);
  caf::result<log_place> log(const find_log& q);
  void place_log(const ledger::attempt_row& row, rt::reply<log_place> out);
  void place_log_here(const ledger::attempt_row& row, rt::reply<log_place> out);
  void tick();
  void remember_clients();

  rt::self<interface>* self_;
  config config_;
  peers peers_;
  struct client {
    std::string name;
    rt::boot_clock::time_point heard;
  };
  /// Polls of open requests that no graph serves yet; answered after poll_pause so that clients do not spin.
  std::vector<std::pair<request_progress, rt::reply<request_progress>>> early_;
  static constexpr std::chrono::milliseconds poll_pause{20};
  std::map<request_id, client> leaving_; ///< requests that end when their client leaves
  bool remembered_ = false;              ///< those of before a crash are among them
};

} // namespace coppice::actors
