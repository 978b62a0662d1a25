#pragma once

#include "messages/errors.hpp"
#include "nix/derivation.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

/// Reading what a request needs from a directory that holds store objects under their base names. No Nix needed.
namespace coppice::app {

/// What is too large to be a derivation closure.
struct closure_limits {
  std::size_t derivations_max = 1'000'000;
  std::uint64_t derivation_bytes_max = 64 << 20; ///< of one .drv file
  std::uint64_t text_bytes_max = 64 << 20;       ///< a source file beyond it is taken to refer to nothing
};

/// Some derivations, all that they need, and the sources that any of them names.
struct derivation_closure {
  struct entry {
    std::string aterm; ///< the file's bytes
    nix::derivation parsed;
  };
  std::map<nix::store_path, entry> derivations;
  std::map<nix::store_path, std::set<nix::store_path>> sources; ///< with what each refers to, which are sources too
};

/// Reads the closure of `roots` from `store_dir`. Fails, naming the file and who needs it, for a file that is missing,
/// malformed, not what its name says, or states a wrong output path; for a cycle, naming it.
expected<derivation_closure> read_closure(const std::vector<nix::store_path>& roots,
                                          const std::filesystem::path& store_dir, const closure_limits& limits = {});

} // namespace coppice::app
