#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace coppice::sim {

/// The machines of a farm: the one that keeps the ledger, which is number 0, and others.
inline const std::string hub_name = "hub";
inline std::string machine_name(std::size_t number) {
  static const std::array<std::string, 4> trees{hub_name, "ash", "elm", "fir"};
  return number < trees.size() ? trees[number] : "m" + std::to_string(number);
}

} // namespace coppice::sim
