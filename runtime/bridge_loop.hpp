#pragma once

#include "runtime/bridge.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

namespace coppice::rt {

/// BRIDGE's thread, which owns the sockets: made, used and closed on it. The ZAP responder lives as long as the ROUTER
/// and in the same poll set, because without one libzmq lets every CURVE client in.
class bridge_loop {
public:
  struct listener {
    std::function<void(std::string endpoint)> bound; ///< on the loop's thread
    std::function<void(error why)> ended;            ///< by a failure; on the loop's thread, sockets are closed
  };
  bridge_loop(caf::actor_system& system, bridge_options options, std::shared_ptr<const registry> exposed,
              std::shared_ptr<bridge_memory> memory, listener l);
  /// Closes the sockets and waits for the thread.
  ~bridge_loop();
  bridge_loop(const bridge_loop&) = delete;
  bridge_loop& operator=(const bridge_loop&) = delete;

private:
  class sockets;
  void run();

  bridge_options options_;
  std::shared_ptr<const registry> exposed_;
  std::shared_ptr<bridge_memory> memory_;
  listener listener_;
  std::shared_ptr<outbox> outbox_ = std::make_shared<outbox>();
  caf::strong_actor_ptr port_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

} // namespace coppice::rt
