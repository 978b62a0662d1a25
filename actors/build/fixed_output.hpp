#pragma once

#include "nix/derivation.hpp"

#include <optional>
#include <set>
#include <string>

namespace coppice::actors {

/// What was found at a fixed output's path.
struct fixed_output_facts {
  bool plain_file = false; ///< a regular file that is not executable
  nix::hash hash;          ///< by the declared algorithm: of the file's bytes if flat, else of the NAR
  std::set<nix::store_path> references;
};

/// Why this output of a fixed-output derivation must not be registered, in Nix's words, which people and scripts read
/// the right hash from; nothing if it is what was declared. Throws std::logic_error for another kind of derivation.
std::optional<std::string> fixed_output_fault(const nix::store_path& drv_path, const nix::derivation& drv,
                                              const fixed_output_facts& facts,
                                              std::string_view store_dir = nix::default_store_dir);

} // namespace coppice::actors
