#pragma once

#include "messages/build.hpp"
#include "nix/derivation.hpp"
#include "nix/hash.hpp"
#include "nix/hash_modulo.hpp"

#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace coppice::test {

/// A small workload for scripted_builders: `top` is made of `left` and `right`, both of the fixed output `leaf`;
/// `right` also of `found`, which an upstream cache has. Every output holds the paths that it is made of.
class diamond {
public:
  diamond() {
    nix::derivation drv;
    drv.env["text"] = "leaf";
    auto& fixed = drv.outputs["out"];
    auto hash = nix::hash_of(nix::hash_algo::sha256, drv.env["text"]);
    fixed.hash_algo = drv.env["outputHashAlgo"] = "sha256";
    fixed.hash = drv.env["outputHash"] = hash.base16();
    drv.env["outputHashMode"] = "flat";
    fixed.path = need(nix::fixed_output_path("leaf", nix::content_method::flat, hash));
    add("leaf", std::move(drv));
    add("found", {});
    add("left", of({"leaf"}));
    add("right", of({"leaf", "found"}));
    add("top", of({"left", "right"}));
  }
  static inline const std::vector<std::string> names{"leaf", "found", "left", "right", "top"};
  const nix::store_path& drv(const std::string& name) const { return paths_.at(name); }
  const nix::store_path& out(const std::string& name) const { return *all_.at(drv(name)).outputs.at("out").path; }
  /// What the output holds.
  const std::string& text(const std::string& name) const { return all_.at(drv(name)).env.at("text"); }
  inhash key(const std::string& name) { return {need(modulo_.inhash_of(drv(name)))}; }
  /// For store::pack_closure.
  std::vector<std::pair<nix::store_path, std::string>> derivations() const {
    std::vector<std::pair<nix::store_path, std::string>> list;
    for (auto& [path, one] : all_)
      list.emplace_back(path, nix::print_derivation(one));
    return list;
  }

private:
  template <class T, class E>
  static T need(tl::expected<T, E> x) {
    if (!x) throw std::logic_error(x.error().what);
    return std::move(*x);
  }
  nix::derivation of(const std::vector<std::string>& inputs) const {
    nix::derivation made;
    for (auto& input : inputs) {
      made.input_drvs[drv(input)].insert("out");
      made.env["text"] += out(input).to_string() + "\n";
    }
    return made;
  }
  void add(const std::string& name, nix::derivation made) {
    made.name = name;
    made.system = "x86_64-linux";
    made.builder = "/bin/sh";
    made.env["name"] = name;
    if (!made.outputs["out"].path) {
      made.env["text"] += name;
      made.env["out"];
      made.outputs["out"].path = need(modulo_.output_paths(made)).at("out");
    }
    made.env["out"] = made.outputs["out"].path->to_string();
    paths_.emplace(name, nix::derivation_path(made));
    all_.emplace(paths_.at(name), std::move(made));
  }

  std::map<nix::store_path, nix::derivation> all_;
  std::map<std::string, nix::store_path> paths_;
  nix::modulo_cache modulo_{[this](const nix::store_path& path) -> const nix::derivation* {
    auto found = all_.find(path);
    return found == all_.end() ? nullptr : &found->second;
  }};
};

} // namespace coppice::test
