#pragma once

#include "messages/status.hpp"

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <string>
#include <vector>

/// A node's actors as a tree. Pure.
namespace coppice::app {

/// An actor and those below it. Supervisors that were not told of are filled in.
struct actor_branch {
  actor_status status;
  std::vector<actor_branch> children; ///< by path
};

/// The tree of actors given by their paths ("/oak/lock/ledger"); an artificial top "/" if they have none in common.
actor_branch as_tree(const std::vector<actor_status>& actors);

/// {path, state, restarts, uptime_s, mailbox, children, …}, nested.
nlohmann::json tree_json(const actor_branch& top);

/// Lines with box characters, at most `width` columns wide (0: no limit), with what fits of each actor; `node` stands for
/// the top's name.
std::vector<std::string> tree_lines(const actor_branch& top, const std::string& node, std::size_t width);

} // namespace coppice::app
