#include "actors/build/references_graph.hpp"

#include "nix/hash.hpp"

#include <nlohmann/json.hpp>

namespace coppice::actors {

references_graph::references_graph(const build_inputs& inputs, std::string store_dir)
    : inputs_(inputs), store_dir_(std::move(store_dir)), references_(inputs.closure.size()) {
  for (std::size_t i = 0; i < inputs_.closure.size(); ++i)
    places_.emplace(inputs_.closure[i].path, i);
  for (std::size_t i = 0; i < inputs_.closure.size(); ++i)
    for (const auto& reference : inputs_.closure[i].references)
      if (auto at = places_.find(reference); at != places_.end()) references_[i].push_back(at->second);
}

void references_graph::add_closure(std::size_t root, std::vector<bool>& done) const {
  std::vector<std::size_t> left{root};
  while (!left.empty()) {
    const auto at = left.back();
    left.pop_back();
    if (done[at]) continue;
    done[at] = true;
    left.insert(left.end(), references_[at].begin(), references_[at].end());
  }
}

expected<references_graph::places> references_graph::exported(const std::set<nix::store_path>& roots) const {
  std::vector<bool> done(inputs_.closure.size());
  auto add = [&](const nix::store_path& path) -> expected<void> {
    const auto at = places_.find(path);
    if (at == places_.end())
      return fail(ec::invalid, "cannot export references of path '" + path.to_string(store_dir_) +
                                   "' because it is not in the input closure of the derivation");
    add_closure(at->second, done);
    return {};
  };
  for (const auto& root : roots)
    if (auto added = add(root); !added) return tl::unexpected(added.error());
  // of a derivation its outputs too, as images with everything needed for a rebuild want them
  const auto of_roots = done;
  for (std::size_t i = 0; i < of_roots.size(); ++i)
    if (auto outputs = inputs_.outputs_of.find(inputs_.closure[i].path);
        of_roots[i] && outputs != inputs_.outputs_of.end())
      for (const auto& output : outputs->second)
        if (auto added = add(output); !added) return tl::unexpected(added.error());
  places result;
  for (const auto& [path, at] : places_)
    if (done[at]) result.emplace_hint(result.end(), path, at);
  return result;
}

expected<std::string> references_graph::registration(const std::set<nix::store_path>& roots) const {
  const auto wanted = exported(roots);
  if (!wanted) return tl::unexpected(wanted.error());
  std::string text;
  for (const auto& [path, at] : *wanted) {
    const auto& references = inputs_.closure[at].references;
    // the empty line is for the deriver, which is not told
    text += path.to_string(store_dir_) + "\n\n" + std::to_string(references.size()) + "\n";
    for (const auto& reference : references)
      text += reference.to_string(store_dir_) + "\n";
  }
  return text;
}

std::uint64_t references_graph::closure_size(std::size_t root) const {
  std::vector<bool> done(inputs_.closure.size());
  add_closure(root, done);
  std::uint64_t size = 0;
  for (std::size_t i = 0; i < done.size(); ++i)
    if (done[i]) size += inputs_.closure[i].nar_size;
  return size;
}

expected<nlohmann::json> references_graph::describe(const std::set<nix::store_path>& roots) const {
  const auto wanted = exported(roots);
  if (!wanted) return tl::unexpected(wanted.error());
  auto list = nlohmann::json::array();
  for (const auto& [path, at] : *wanted) {
    const auto& info = inputs_.closure[at];
    auto references = nlohmann::json::array();
    for (const auto& reference : info.references)
      references.push_back(reference.to_string(store_dir_));
    nlohmann::json one{{"path", path.to_string(store_dir_)},
                       {"narHash", nix::hash{info.nar_hash.bytes}.to_string()},
                       {"narSize", info.nar_size},
                       {"references", std::move(references)},
                       {"closureSize", closure_size(at)}};
    if (!info.ca.empty()) one["ca"] = info.ca;
    list.push_back(std::move(one));
  }
  return list;
}

std::set<nix::store_path> derivations_among(const std::vector<path_info>& closure) {
  std::set<nix::store_path> found;
  for (const auto& info : closure)
    if (info.path.is_derivation()) found.insert(info.path);
  return found;
}

} // namespace coppice::actors
