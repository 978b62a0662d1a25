#pragma once

#include <optional>
#include <string>
#include <vector>

namespace coppice::bench {

/// The ratio of value and rival that is hoped for.
struct aim {
  double bound;
  bool at_least; ///< else at most
};
inline aim at_least(double bound) {
  return {bound, true};
}
inline aim at_most(double bound) {
  return {bound, false};
}

struct row {
  std::string name;
  double value;
  std::string unit;
  std::optional<double> rival{};
  std::optional<bench::aim> aim{};
};

/// Prints the rows as a table, or each as one line of JSON.
void print(const std::vector<row>& rows, bool json);

} // namespace coppice::bench
