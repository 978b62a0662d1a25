#pragma once

#include "runtime/sessions.hpp"
#include "tests/sim/network.hpp"

#include <deque>
#include <memory>
#include <optional>

namespace coppice::sim {

class bridge;

/// The connections between bridges: as ZeroMQ's, they are dialled again by themselves and do not tell that a peer's
/// process is another one now.
class wires {
public:
  /// Between so many machines, the hub included.
  wires(network& net, std::size_t machines) : net_(net), machines_(machines) {}
  network& net() { return net_; }

private:
  friend class bridge;
  network& net_;
  const std::size_t machines_;
  std::map<std::string, bridge*> listening_;     ///< by machine; of a process that lives
  std::map<std::string, std::uint64_t> sockets_; ///< route to the bridge that dialled over it and still does
  std::map<std::uint64_t, bridge*> living_;
  std::uint64_t last_bridge_ = 0, last_route_ = 0;
};

/// BRIDGE of one process: the real sessions, over simulated wires. Dials as bridge_loop does.
class bridge {
public:
  struct options {
    node_id me;
    incarnation born;
    node_id hub;                      ///< to be dialled; empty: this is the hub
    std::function<void()> on_words{}; ///< something arrived, to be pumped
    std::chrono::milliseconds dial_patience{5'000}, redial_first{200}, redial_longest{8'000};
  };
  /// `mesh` is that of the process; `system` its actors'.
  bridge(wires& all, caf::actor_system& system, std::shared_ptr<rt::mesh> mesh, options o);
  ~bridge();
  bridge(const bridge&) = delete;
  bridge& operator=(const bridge&) = delete;

  /// Takes in what has arrived, and sends what waits; false if there was nothing.
  bool pump(rt::instant now);
  /// A few times a second.
  void tick(rt::instant now);

private:
  struct words {
    std::string route, key, head, body;
    bool dialled; ///< came over a socket of ours
  };
  bool send(const std::string& route, const rt::frame& f);
  void hang_up(rt::instant now);
  void dial(rt::instant now);
  void arrive(const words& w);
  static const rt::allow_list& friends(std::size_t machines);
  static const std::string& key_of(const std::string& machine);

  wires& wires_;
  const options options_;
  const std::uint64_t number_;
  std::shared_ptr<rt::outbox> out_ = std::make_shared<rt::outbox>();
  std::optional<rt::sessions> sessions_;
  std::deque<words> inbox_;
  std::string socket_; ///< the route by which the hub knows us; empty: none is open
  bool greeted_ = false;
  rt::instant began_{}, next_{};
  std::chrono::milliseconds pause_;
};

} // namespace coppice::sim
