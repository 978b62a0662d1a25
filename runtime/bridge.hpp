#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/sessions.hpp"

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace coppice::rt {

/// Another node, which this one dials.
struct node_address {
  node_id node;
  std::vector<std::string> endpoints; ///< "tcp://host:port", where it may be; tried in turn
  std::string public_key; ///< CURVE, z85
  key_pair as;            ///< the keys by which it knows this node
};

struct bridge_options {
  std::string listen = "tcp://127.0.0.1:0";       ///< port 0: a free one
  key_file keys;                                  ///< the node's own
  std::filesystem::path authorized;               ///< the allow-list
  session_options sessions;                       ///< with the node's name in `peers`
  std::chrono::milliseconds bind_patience{5'000}; ///< how long to try to bind, at a restart above all
  std::chrono::milliseconds self_test_period{60'000};
  std::chrono::milliseconds self_test_patience{
      5'000}; ///< then a test that came to no end is begun anew, with a warning
  std::shared_ptr<rt::mesh> mesh = {};       ///< null: other nodes have nothing to say
  std::vector<node_address> dials = {};      ///< nodes to be connected with; needs `mesh`
  std::chrono::milliseconds dial_patience{5'000}; ///< for a welcome, from any of a node's endpoints; then other sockets
  std::chrono::milliseconds dial_patience_min{1'000}; ///< with each of them
  std::chrono::milliseconds redial_first{200}; ///< between a dial of all in vain and the next; doubled each time
  std::chrono::milliseconds redial_longest{8'000}; ///< well below a lease, or a node that comes back would lose it
};

/// What outlives an incarnation of BRIDGE: where the first one was bound, and the counters.
struct bridge_memory {
  std::mutex mutex;
  std::string endpoint; ///< guarded by mutex; empty before the first bind
  std::shared_ptr<bridge_counters> counters = std::make_shared<bridge_counters>();
};

class bridge_loop;

/// BRIDGE.
/// Takes: calls of other machines, through its sockets; get. Dials the nodes it is told of.
/// Sends: calls to the actors of the registry.
/// Owns: the ROUTER, the DEALERs and the ZAP responder, on a thread of their own that ends with it.
/// Supervised by ROOT, permanent: a restart binds the same endpoint again, and clients find it by themselves.
class bridge {
public:
  using interface = bridge_actor;
  static constexpr const char* name = "bridge";

  bridge(self<bridge_actor>* self, bridge_options options, std::shared_ptr<const registry> exposed,
         std::shared_ptr<bridge_memory> memory);
  ~bridge();
  bridge(const bridge&) = delete;
  bridge& operator=(const bridge&) = delete;
  interface::behavior_type make_behavior();

private:
  self<bridge_actor>* self_;
  std::shared_ptr<bridge_memory> memory_;
  std::string endpoint_; ///< empty until bound
  std::vector<reply<std::string>> waiting_;
  std::unique_ptr<bridge_loop> loop_;
};

} // namespace coppice::rt
