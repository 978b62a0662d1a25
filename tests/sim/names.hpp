#pragma once

#include <string>
#include <vector>

namespace coppice::sim {

/// The machines of a farm: the one that keeps the ledger, and others.
inline const std::string hub_name = "hub";
inline const std::vector<std::string> machine_names{hub_name, "ash", "elm", "fir"};

} // namespace coppice::sim
