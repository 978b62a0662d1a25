#pragma once

#include "bench/support/measure.hpp"

namespace coppice::bench {

/// A solo coppiced as a user would start it, from the directory of this program, on ports of its own; ended by the
/// destructor.
class real_node {
public:
  /// Keeps all below `dir`; `settings` is its node.toml. Waits until it serves: `unavailable`, with where its log is,
  /// if that takes more than half a minute.
  static expected<real_node> start(const std::filesystem::path& dir, const std::string& settings);

  const std::filesystem::path& state_dir() const { return state_dir_; }
  const background& process() const { return process_; }

private:
  real_node(std::filesystem::path state_dir, background process)
      : state_dir_(std::move(state_dir)), process_(std::move(process)) {}

  std::filesystem::path state_dir_;
  background process_;
};

} // namespace coppice::bench
