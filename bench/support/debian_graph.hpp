#pragma once

#include "messages/errors.hpp"
#include "nix/store_path.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

/// Derivations with the shape of Debian's build-dependencies (bench/workloads/debian).
namespace coppice::bench {

struct graph_options {
  std::size_t copies = 1;               ///< of the whole graph, with names of their own; each needs nothing of another
  std::size_t packages_max = 1'000'000; ///< of each copy: that many of the first ones, which are complete in themselves
};

/// Input-addressed derivations with right paths and hashes, and the ones they need before them.
struct derivation_graph {
  std::vector<std::pair<nix::store_path, std::string>> derivations; ///< .drv paths and their texts
  nix::store_path root; ///< the last derivation, "all": it needs every one that no other one needs
};

/// Makes the graph; the same options give the same bytes.
expected<derivation_graph> make_debian_graph(const graph_options& options = {});

/// `count` derivations that need nothing, each with a line of text as output; another salt gives other paths. The root
/// is the last of them.
expected<derivation_graph> make_flat_graph(std::size_t count, std::uint64_t salt);

/// Writes the .drv files to `root`/nix/store and what `nix-store --load-db` is to read to `root`/registration.
expected<void> write_nix_store(const derivation_graph& graph, const std::filesystem::path& root);

} // namespace coppice::bench
