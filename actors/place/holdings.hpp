#pragma once

#include "messages/build.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <vector>

namespace coppice::actors {

/// Which machine has which large input in its own store: the one that built it, and those that were given a job that
/// needs it. Decides how much would have to be moved. What it believes may be wrong; then more is moved than need be.
class holdings {
public:
  /// Differences below one step do not count: an idle machine is worth more.
  static constexpr std::uint64_t step_bytes = std::uint64_t{32} << 20;

  /// Of so many inputs the holders are remembered, then the earliest is forgotten.
  explicit holdings(std::size_t inputs_max = 100'000) : inputs_max_(inputs_max) {}

  /// The machine has these, or is about to.
  void on_given(const node_id& node, const std::vector<heavy_input>& inputs);

  /// Bytes of these that would have to be moved to that machine.
  std::uint64_t missing_bytes(const node_id& node, const std::vector<heavy_input>& inputs) const;
  /// The same in steps, rounded to the nearest.
  std::uint64_t missing_steps(const node_id& node, const std::vector<heavy_input>& inputs) const {
    return (missing_bytes(node, inputs) + step_bytes / 2) / step_bytes;
  }
  std::size_t remembered() const { return holders_.size(); }

private:
  std::size_t inputs_max_;
  std::map<nix::store_path, std::set<node_id>> holders_;
  std::deque<nix::store_path> order_; ///< of holders_, earliest first
};

} // namespace coppice::actors
