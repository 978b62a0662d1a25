#pragma once

#include "messages/build.hpp"
#include "messages/errors.hpp"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace coppice::actors {

/// What a build finds in its store.
struct build_inputs {
  std::vector<path_info> closure; ///< each path once, with all it refers to
  /// The outputs of the derivations in the closure; needed only for those that are to be exported.
  std::map<nix::store_path, std::set<nix::store_path>> outputs_of{};
};

/// Tells builders of the closure of their inputs, as they ask for by exportReferencesGraph. Keeps a reference to the
/// inputs.
class references_graph {
public:
  explicit references_graph(const build_inputs& inputs, std::string store_dir);

  /// The closure of these paths as `nix-store --register-validity` reads it. `invalid`, in Nix's words, for a path that
  /// is no input.
  expected<std::string> registration(const std::set<nix::store_path>& roots) const;

  /// The closure of these paths as a list of objects: path, narHash, narSize, references, closureSize, ca. `invalid`
  /// like registration().
  expected<nlohmann::json> describe(const std::set<nix::store_path>& roots) const;

private:
  /// Places in inputs_.closure, in the order of the paths.
  using places = std::map<nix::store_path, std::size_t>;
  expected<places> exported(const std::set<nix::store_path>& roots) const;
  void add_closure(std::size_t root, std::vector<bool>& done) const;
  std::uint64_t closure_size(std::size_t root) const;

  const build_inputs& inputs_;
  std::string store_dir_;
  places places_;
  std::vector<std::vector<std::size_t>> references_;
};

/// The derivations in the closure of the inputs whose outputs exportReferencesGraph may ask for.
std::set<nix::store_path> derivations_among(const std::vector<path_info>& closure);

} // namespace coppice::actors
