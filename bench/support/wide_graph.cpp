#include "bench/support/wide_graph.hpp"

#include "nix/derivation.hpp"
#include "nix/hash_modulo.hpp"

#include <map>
#include <stdexcept>

namespace coppice::bench {

derivation_graph make_wide_graph(std::size_t leaves, const std::string& salt, const std::string& shell) {
  std::map<nix::store_path, nix::derivation> all;
  nix::modulo_cache modulo{[&](const nix::store_path& path) { return &all.at(path); }};
  derivation_graph graph;
  nix::derivation root;
  auto add = [&](nix::derivation drv, const std::string& name) {
    drv.name = name + salt;
    drv.system = "x86_64-linux";
    drv.builder = shell;
    drv.args = {"-c", "echo $name > $out"};
    drv.env["name"] = drv.name;
    drv.env["out"];
    drv.outputs["out"];
    auto outputs = modulo.output_paths(drv);
    if (!outputs) throw std::runtime_error(outputs.error().what);
    drv.outputs["out"].path = outputs->at("out");
    drv.env["out"] = outputs->at("out").to_string();
    graph.root = nix::derivation_path(drv);
    graph.derivations.emplace_back(graph.root, nix::print_derivation(drv));
    all.emplace(graph.root, std::move(drv));
  };
  for (std::size_t i = 0; i < leaves; ++i) {
    add({}, "leaf-" + std::to_string(i));
    root.input_drvs[graph.root].insert("out");
  }
  add(std::move(root), "all");
  return graph;
}

} // namespace coppice::bench
