#pragma once

#include "runtime/supervisor.hpp"

/// Between a tree's declaration and the actors that run it.
namespace coppice::rt {

/// What a supervisor is built from, again in each incarnation.
struct supervisor_plan {
  std::string path;
  directory dir;
  bool root = false;
  supervisor_options options;
  std::vector<child_spec> children;

  std::string path_of(const std::string& child) const {
    return path.ends_with('/') ? path + child : path + "/" + child;
  }
};

/// Starts a supervisor; the plan must not change any more then.
ref_actor::factory make_supervisor(std::shared_ptr<const supervisor_plan> plan);

} // namespace coppice::rt
