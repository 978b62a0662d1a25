#pragma once

#include "actors/build/holder_health.hpp"
#include "messages/ledger.hpp"

#include <map>
#include <vector>

namespace coppice::actors {

/// Which machines are asked for a path before the farm's store is, in this order. Decides.
class fetch_plan {
public:
  struct options {
    node_id me;
    bool store_is_here = false; ///< the farm's store is on this machine's own disk: no other one is nearer
    holder_health::options health = {};
  };
  explicit fetch_plan(options o) : options_(std::move(o)), health_(options_.health) {}

  /// What the ledger says of paths that are to be fetched, until forget().
  void on_holders(const std::vector<ledger::path_holder>& holders);
  void forget(const nix::store_path& path) { holders_.erase(path); }

  /// Those that are not barred now.
  std::vector<ledger::path_holder> holders_of(const nix::store_path& path, holder_health::time_point now) const;
  holder_health& health() { return health_; }

private:
  const options options_;
  holder_health health_;
  std::map<nix::store_path, std::vector<ledger::path_holder>> holders_;
};

} // namespace coppice::actors
