#include "actors/plan/closure_graph.hpp"

#include "nix/attributes.hpp"
#include "nix/hash_modulo.hpp"
#include "store/closure.hpp"

#include <map>

namespace coppice::actors {
namespace {

nix::expected<std::vector<std::string>> required_features(const nix::derivation& drv) {
  auto all = nix::attributes::of(drv);
  if (!all) return tl::unexpected(all.error());
  auto words = all->words("requiredSystemFeatures");
  if (!words) return tl::unexpected(words.error());
  return words->value_or(std::vector<std::string>{});
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

  auto graph = std::make_shared<closure_graph>();
  std::map<nix::store_path, std::uint32_t> index;
  for (auto& [path, d] : *closure) index.emplace(path, static_cast<std::uint32_t>(index.size()));
  nix::modulo_cache modulo{[&](const nix::store_path& path) -> const nix::derivation* {
    auto found = closure->find(path);
    return found == closure->end() ? nullptr : &found->second.drv;
  }};
  for (auto& [path, d] : *closure) {
    plan_node node{path, {}, {}, unplannable(d.drv)};
    auto features = required_features(d.drv);
    if (!features) node.refused = features.error().what;
    detail more{std::move(d.aterm), {d.drv.input_srcs.begin(), d.drv.input_srcs.end()}, {}, d.drv.system,
                features ? std::move(*features) : std::vector<std::string>{}};
    more.inputs = more.sources;
    auto hash = modulo.inhash_of(d.drv);
    if (!hash) return fail(ec::invalid, "cannot hash " + path.to_string() + ": " + hash.error().what);
    node.key.bytes = *hash;
    if (auto right = modulo.verify_output_paths(d.drv); !right)
      return fail(ec::invalid, "wrong output path in " + path.to_string() + ": " + right.error().what);
    for (auto& [input, wanted] : d.drv.input_drvs) {
      node.inputs.push_back(index.at(input));
      for (auto& name : wanted) {
        auto& outputs = closure->at(input).drv.outputs;
        auto output = outputs.find(name);
        if (output == outputs.end())
          return fail(ec::invalid, path.to_string() + " wants output '" + name + "' of " + input.to_string() + ", which has none of that name");
        if (output->second.path) more.inputs.push_back(*output->second.path);
      }
    }
    graph->nodes_.push_back(std::move(node));
    graph->details_.push_back(std::move(more));
  }
  for (auto& root : roots) {
    auto found = index.find(root.drv);
    if (found == index.end()) return fail(ec::invalid, "the root " + root.drv.to_string() + " is not in the closure");
    graph->roots_.push_back(found->second);
  }
  return graph;
}

job closure_graph::make_job(std::uint32_t node) const {
  auto& d = details_[node];
  job j;
  j.key = nodes_[node].key;
  j.drv = nodes_[node].drv;
  j.aterm = d.aterm;
  j.inputs = d.inputs;
  j.system = d.system;
  j.features = d.features;
  return j;
}

std::optional<std::uint32_t> closure_graph::producer(const nix::store_path& path) const {
  auto text = '"' + path.to_string() + '"';
  for (std::uint32_t i = 0; i < details_.size(); ++i) {
    std::string_view outputs = details_[i].aterm; // they come first
    if (outputs.substr(0, outputs.find("],[")).find(text) != outputs.npos) return i;
  }
  return {};
}

} // namespace coppice::actors
