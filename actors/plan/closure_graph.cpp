#include "actors/plan/closure_graph.hpp"

#include "nix/attributes.hpp"

#include <set>

namespace coppice::actors {
namespace {

/// A derivation of which only this attribute is known, wherever it is stated.
nix::derivation stating(const nix::derivation_view& drv, const char* attribute) {
  nix::derivation part;
  for (auto* name : {"__json", attribute})
    if (auto value = drv.variable(name)) part.env.emplace(name, std::move(*value));
  return part;
}

nix::expected<std::vector<std::string>> required_features(const nix::derivation_view& drv) {
  const auto part = stating(drv, "requiredSystemFeatures");
  if (part.env.empty()) return {};
  auto all = nix::attributes::of(part);
  if (!all) return tl::unexpected(all.error());
  auto words = all->words("requiredSystemFeatures");
  if (!words) return tl::unexpected(words.error());
  return words->value_or(std::vector<std::string>{});
}

/// What it says, or what counts if it does not, or says it as another type.
bool flag_of(const nix::derivation_view& drv, const char* name, bool absent) {
  const auto part = stating(drv, name);
  if (part.env.empty()) return absent;
  auto all = nix::attributes::of(part);
  return all ? all->flag(name, absent).value_or(absent) : absent;
}

/// It fetches or writes rather than computes: by its kind, or because its author says that it is not worth a machine.
bool is_io_bound(const nix::derivation_view& drv) {
  const auto& head = drv.head();
  if (head.is_fixed_output() || head.system == "builtin" || head.builder.starts_with("builtin:")) return true;
  return flag_of(drv, "preferLocalBuild", false);
}

const nix::derivation_output* find_output(const store::derivation_closure::item& item, std::string_view name) {
  auto& all = item.drv.head().outputs;
  auto found = all.find(name);
  return found == all.end() ? nullptr : &found->second;
}

/// Why no job can be made of it, whatever machine there is; empty if one can.
std::string unplannable(const nix::derivation& drv) {
  switch (drv.kind()) {
    case nix::output_kind::input_addressed:
    case nix::output_kind::fixed: return {};
    case nix::output_kind::floating: return "floating content-addressed outputs are not supported yet";
    case nix::output_kind::deferred: return "derivations below content-addressed ones are not supported yet";
    case nix::output_kind::impure: return "impure derivations are not supported";
  }
  return {};
}

} // namespace

expected<std::shared_ptr<const closure_graph>> closure_graph::load(store::blob_store& blobs, const std::string& key,
                                                                   const std::vector<request_root>& roots) {
  auto bytes = store::read_blob(blobs, key, store::closure_limits{}.bytes_max);
  if (!bytes) return tl::unexpected(bytes.error());
  auto closure = store::unpack_closure(*bytes);
  if (!closure) return tl::unexpected(closure.error());

  auto graph = std::make_shared<closure_graph>(std::move(*closure));
  if (auto added = graph->add_nodes(); !added) return tl::unexpected(added.error());
  std::unordered_map<nix::store_path, std::uint32_t> wanted;
  constexpr auto absent = UINT32_MAX;
  for (auto& root : roots) wanted.emplace(root.drv, absent);
  for (std::uint32_t i = 0; i < graph->nodes_.size(); ++i)
    if (auto found = wanted.find(graph->nodes_[i].drv); found != wanted.end()) found->second = i;
  for (auto& root : roots) {
    auto node = wanted.at(root.drv);
    if (node == absent) return fail(ec::invalid, "the root " + root.drv.to_string() + " is not in the closure");
    graph->roots_.push_back(node);
  }
  graph->find_substitutable();
  return graph;
}

void closure_graph::find_substitutable() {
  auto& items = closure_.items();
  std::vector<std::set<std::string_view>> wanted(items.size());
  for (auto& item : items)
    for (std::size_t k = 0; k < item.inputs.size(); ++k)
      nix::for_each_wanted(item.drv.inputs()[k].wanted, [&](auto name) { wanted[item.inputs[k]].insert(name); });
  for (auto root : roots_)
    for (auto& [name, output] : items[root].drv.head().outputs) wanted[root].insert(name);
  substitutable_.resize(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!nodes_[i].refused.empty() || !flag_of(items[i].drv, "allowSubstitutes", true)) continue;
    for (auto& name : wanted[i])
      if (auto* output = find_output(items[i], name); output && output->path) {
        realised_output o;
        o.name = name;
        o.info.path = *output->path;
        substitutable_[i].push_back(std::move(o));
      }
  }
}

expected<void> closure_graph::add_nodes() {
  auto& items = closure_.items();
  std::vector<bool> is_input(items.size());
  for (auto& item : items)
    for (auto input : item.inputs) is_input[input] = true;
  std::vector<nix::modulo> hashes(items.size()); // as inputs count them
  std::vector<const nix::modulo*> inputs;
  nodes_.reserve(items.size());
  for (std::uint32_t i = 0; i < items.size(); ++i) {
    auto& item = items[i];
    inputs.clear();
    for (auto input : item.inputs) inputs.push_back(&hashes[input]);
    auto hash = [&](bool mask) { return nix::hash_modulo(item.drv, inputs, mask); };
    auto masked = hash(true);
    auto unmasked = is_input[i] ? hash(false) : masked;
    if (!masked || !unmasked)
      return fail(ec::invalid, "cannot hash " + item.path.to_string() + ": " + (masked ? unmasked : masked).error().what);
    hashes[i] = *unmasked;
    if (auto added = add_node(i, *masked); !added) return added;
  }
  return {};
}

expected<void> closure_graph::add_node(std::uint32_t i, const nix::modulo& masked) {
  auto& item = closure_.items()[i];
  if (auto right = nix::verify_output_paths(item.drv.head(), masked); !right)
    return fail(ec::invalid, "wrong output path in " + item.path.to_string() + ": " + right.error().what);
  for (std::size_t k = 0; k < item.inputs.size(); ++k) {
    auto& input = closure_.items()[item.inputs[k]];
    std::string_view absent;
    bool plain = nix::for_each_wanted(item.drv.inputs()[k].wanted, [&](std::string_view name) {
      if (!find_output(input, name)) absent = name;
    });
    if (!plain || !absent.empty())
      return fail(ec::invalid, item.path.to_string() + " wants output " + nix::quoted(absent) + " of " +
                                 input.path.to_string() + ", which has none of that name");
  }
  for (auto& [name, output] : item.drv.head().outputs)
    if (output.path) producers_.emplace(*output.path, i);
  plan_node node{item.path, {masked.digest}, item.inputs, unplannable(item.drv.head()), 0};
  auto features = required_features(item.drv);
  if (!features) node.refused = features.error().what;
  lane_key key{item.drv.head().system, features ? std::move(*features) : std::vector<std::string>{},
               is_io_bound(item.drv)};
  auto [lane, fresh] = lanes_.try_emplace(std::move(key), static_cast<std::uint32_t>(lanes_.size()));
  if (fresh) lane_keys_.push_back(&lane->first);
  node.lane = lane->second;
  nodes_.push_back(std::move(node));
  return {};
}

job closure_graph::make_job(std::uint32_t node) const {
  auto& item = closure_.items()[node];
  job j;
  j.key = nodes_[node].key;
  j.drv = item.path;
  j.aterm = std::string(item.drv.text());
  auto inputs = sources(node);
  for (std::size_t k = 0; k < item.inputs.size(); ++k)
    nix::for_each_wanted(item.drv.inputs()[k].wanted, [&](std::string_view name) {
      auto* output = find_output(closure_.items()[item.inputs[k]], name);
      if (output && output->path) inputs.push_back(*output->path);
    });
  j.inputs = std::move(inputs);
  std::tie(j.system, j.features, j.io_bound) = *lane_keys_[nodes_[node].lane];
  return j;
}

std::vector<nix::store_path> closure_graph::sources(std::uint32_t node) const {
  std::vector<nix::store_path> all;
  for (auto name : closure_.items()[node].drv.sources()) all.push_back(*nix::store_path::from_base_name(name));
  return all;
}

std::optional<std::uint32_t> closure_graph::producer(const nix::store_path& path) const {
  auto found = producers_.find(path);
  return found == producers_.end() ? std::nullopt : std::optional{found->second};
}

} // namespace coppice::actors
