#pragma once

#include "nix/derivation.hpp"
#include "nix/derivation_view.hpp"

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

namespace coppice::nix {

/// A derivation's hash in which fixed-output inputs count by their result rather than by how they are fetched.
struct modulo {
  sha256_digest digest{};
  bool deferred = false; ///< it, or an input transitively, is floating or impure: no output path follows from it.

  bool operator==(const modulo&) const = default;
};

/// The id of a realisation: "sha256:<hex of inhash>!<output>".
std::string drv_output_id(const sha256_digest& inhash, std::string_view output);

/// The hash modulo of a derivation; `inputs` has the unmasked ones of drv.inputs(), in that order. Fails for a fixed
/// output without a path.
expected<modulo> hash_modulo(const derivation_view& drv, std::span<const modulo* const> inputs, bool mask,
                             std::string_view store_dir = default_store_dir);

/// The path of each output of a derivation with that masked hash; of `drv`, only name and outputs are looked at.
/// Outputs whose path is not known before a build (floating, impure, deferred) are absent.
expected<std::map<std::string, store_path>> output_paths(const derivation& drv, const modulo& masked,
                                                         std::string_view store_dir = default_store_dir);

/// Fails unless every path stated for an output is the right one, in `outputs` and in the environment variables named
/// like outputs, and none is stated where it cannot be known.
expected<void> verify_output_paths(const derivation& drv, const modulo& masked,
                                   std::string_view store_dir = default_store_dir);

/// Computes hashes modulo over a graph of derivations, each once; memory is 100 bytes or so per derivation seen, and
/// depth of the graph is bounded by memory only, never by the stack.
class modulo_cache {
public:
  /// Gives the derivation at that path, or null; what it points to must not change while the cache lives.
  using lookup = std::function<const derivation*(const store_path&)>;

  explicit modulo_cache(lookup find, std::string_view store_dir = default_store_dir);

  /// The hash by which other derivations count this one as input (outputs not masked); fails if it or a transitive
  /// input is not found, wants an output that is not there, or lies on a cycle.
  expected<modulo> of(const store_path& drv_path);

  /// The masked hash, with the deferred flag: what output paths are made from.
  expected<modulo> masked(const derivation& drv);

  /// The digest of masked(drv): equal for derivations that build the same thing, so also for fixed outputs with the
  /// same name and declared hash.
  expected<sha256_digest> inhash_of(const derivation& drv);

  /// inhash_of the derivation at that path.
  expected<sha256_digest> inhash_of(const store_path& drv_path);

  /// As the function of that name.
  expected<std::map<std::string, store_path>> output_paths(const derivation& drv);

  /// As the function of that name.
  expected<void> verify_output_paths(const derivation& drv);

  /// Derivations remembered.
  std::size_t size() const { return known_.size(); }

  /// Forgets everything.
  void clear() { known_.clear(); }

private:
  expected<void> resolve_inputs(const derivation& drv);
  expected<modulo> from_known(const derivation& drv, bool mask);

  lookup find_;
  std::string store_dir_;
  std::unordered_map<store_path, modulo> known_;
  std::string text_; // reused between derivations
};

} // namespace coppice::nix
