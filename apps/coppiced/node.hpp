#pragma once

#include "actors/settings.hpp"
#include "messages/errors.hpp"
#include "runtime/settings.hpp"

#include <memory>
#include <string>

namespace coppice::app {

/// What others need to know of a node that serves.
struct node_ready {
  std::string node, listen, http, public_key, state_dir;
  int pid = 0;
};

/// One process of the farm: threads, stores and the actor tree on top, ended in reverse order.
class node {
public:
  explicit node(actors::node_settings settings);
  ~node();
  node(const node&) = delete;
  node& operator=(const node&) = delete;

  /// Opens everything and starts the tree; returns once clients can connect. A hub that runs on another machine is
  /// waited for, with `shutdown` if a signal comes first. Errors say what was tried on what.
  expected<node_ready> start();
  /// Serves until a signal to stop, or until the root supervisor gives up: false.
  bool serve();

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace coppice::app
