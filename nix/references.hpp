#pragma once

#include "nix/store_path.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace coppice::nix {

/// Finds which of some store paths occur in a stream, by their 32-character hash parts, also across the borders of
/// chunks. Feed it the NAR: compressed or re-encoded references are not seen, as Nix has it.
class reference_scanner {
public:
  explicit reference_scanner(const std::set<store_path>& candidates);

  /// Looks through the next bytes.
  void feed(std::string_view chunk);

  /// The candidates seen so far; all that share a hash part that was seen.
  std::set<store_path> found() const;

private:
  struct candidate {
    std::vector<store_path> paths;
    bool seen = false;
  };
  void scan(std::string_view text);
  void check(const char* window);

  std::unordered_map<std::string, candidate> candidates_; // by hash part
  std::array<std::uint64_t, 1024> filter_{};              // bit set: some candidate's first eight bytes hash to it
  std::string tail_;                                      // last bytes seen, fewer than a hash part
};

} // namespace coppice::nix
