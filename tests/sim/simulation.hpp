#pragma once

#include "tests/sim/nemesis.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace coppice::sim {

struct simulation_options {
  std::uint64_t seed = 0;
  bool faults = true; ///< false: the twin to whom nothing happens
  mutant broken = mutant::none;
  std::set<fault> surely = {}; ///< besides what is drawn, if anything may fail at all
  bool prints = false;         ///< a line for each event, to standard error
};

/// What came of a run.
struct outcome {
  std::uint64_t hash = 0;              ///< of all that happened
  std::vector<std::string> violations; ///< of promises; none in a sound farm
  std::string results;                 ///< what the clients were told, as far as it is the same in every run
  nanoseconds lasted{0};
  std::uint64_t transactions = 0, changes = 0, builds = 0, carried = 0, lost = 0, repeated = 0;
  std::vector<std::uint64_t> faults = std::vector<std::uint64_t>(faults_max);
};

/// A farm, its clients and its faults, all drawn from the seed: first everything may fail, then all is mended, and
/// every request must end.
outcome simulate(const simulation_options& o);

/// The command that repeats a run, and shows it.
std::string replay_command(std::uint64_t seed);

} // namespace coppice::sim
