#pragma once

#include "actors/plan/plan.hpp"
#include "messages/build.hpp"
#include "nix/hash_modulo.hpp"
#include "store/blob_store.hpp"
#include "store/closure.hpp"

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace coppice::actors {

/// A request's derivations, read and checked once, never changed.
class closure_graph {
public:
  /// Reads the packed closure from the store and computes every inhash. Blocks: for pool threads. The error says what
  /// is wrong with which derivation.
  static expected<std::shared_ptr<const closure_graph>> load(store::blob_store& blobs, const std::string& key,
                                                             const std::vector<request_root>& roots);

  const std::vector<plan_node>& nodes() const { return nodes_; }
  /// Indices of the request's roots, in its order.
  const std::vector<std::uint32_t>& roots() const { return roots_; }
  /// The job of a node, without token, priority and request.
  job make_job(std::uint32_t node) const;
  /// The sources a node names.
  std::vector<nix::store_path> sources(std::uint32_t node) const;

  /// The outputs that are wanted of a node, all of them if it is a root, when it may be taken from an upstream cache, or
  /// from what was taken from one before; names and paths only.
  const std::vector<realised_output>& substitutable(std::uint32_t node) const { return substitutable_[node]; }

  /// The node that this path is an output of, if any is.
  std::optional<std::uint32_t> producer(const nix::store_path& path) const;

  closure_graph(store::derivation_closure closure) : closure_(std::move(closure)) {}

private:
  expected<void> add_nodes();
  expected<void> add_node(std::uint32_t i, const nix::modulo& masked);

  store::derivation_closure closure_; ///< its items and the nodes have the same indices
  void find_substitutable();

  using lane_key = std::tuple<std::string, std::vector<std::string>, bool>; ///< system, features, I/O-bound
  std::vector<plan_node> nodes_;
  std::map<lane_key, std::uint32_t> lanes_;
  std::vector<const lane_key*> lane_keys_; ///< by lane
  std::vector<std::uint32_t> roots_;
  std::unordered_map<nix::store_path, std::uint32_t> producers_; ///< by output
  std::vector<std::vector<realised_output>> substitutable_;
};

} // namespace coppice::actors

namespace caf {
template <>
struct allowed_unsafe_message_type<std::shared_ptr<const coppice::actors::closure_graph>> : std::true_type {};
} // namespace caf
