#include "actors/build/output_checks.hpp"

#include "nix/attributes.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <map>
#include <set>

namespace coppice::actors {
namespace {

using words = std::optional<std::vector<std::string>>;
using paths = std::set<nix::store_path>;
using verdict = std::optional<build_fault>;

/// What a derivation demands of one output.
struct rules {
  words allowed_references, allowed_requisites, disallowed_references, disallowed_requisites;
  std::optional<std::uint64_t> size_max, closure_size_max;
  bool requisites_with_self = true;
};

using rule_name = std::pair<const char*, words rules::*>;
constexpr std::array reference_rules{rule_name{"allowedReferences", &rules::allowed_references},
                                     rule_name{"allowedRequisites", &rules::allowed_requisites},
                                     rule_name{"disallowedReferences", &rules::disallowed_references},
                                     rule_name{"disallowedRequisites", &rules::disallowed_requisites}};

expected<rules> plain_rules(const nix::attributes& attributes) {
  rules r;
  r.requisites_with_self = false;
  for (const auto& [name, member] : reference_rules) {
    auto value = attributes.words(name);
    if (!value) return fail(ec::invalid, value.error().what);
    r.*member = std::move(*value);
  }
  return r;
}

expected<std::optional<std::uint64_t>> size_rule(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return std::nullopt;
  if (!found->is_number_integer() || *found < 0)
    return fail(ec::invalid, std::string{"its attribute '"} + name + "' must be a size in bytes");
  return found->get<std::uint64_t>();
}

expected<rules> structured_rules(const nlohmann::json& attributes, const std::string& output) {
  rules r;
  const auto all = attributes.find("outputChecks");
  if (all == attributes.end() || !all->contains(output)) return r;
  const auto& object = (*all)[output];
  if (!object.is_object()) return fail(ec::invalid, "its attribute 'outputChecks." + output + "' must be a set");
  for (const auto& [name, member] : reference_rules) {
    const auto found = object.find(name);
    if (found == object.end()) continue;
    auto value = nix::list_of_strings(*found, name);
    if (!value) return fail(ec::invalid, value.error().what);
    r.*member = std::move(*value);
  }
  auto size = size_rule(object, "maxSize");
  if (!size) return tl::unexpected(size.error());
  auto closure_size = size_rule(object, "maxClosureSize");
  if (!closure_size) return tl::unexpected(closure_size.error());
  r.size_max = *size;
  r.closure_size_max = *closure_size;
  return r;
}

/// The outputs of one build, some of whose references are not registered anywhere yet.
class checker {
public:
  checker(const std::vector<realised_output>& outputs, const std::vector<path_info>& inputs, std::string_view store_dir)
      : store_dir_(store_dir) {
    for (const auto& info : inputs)
      known_.emplace(info.path, &info);
    for (const auto& output : outputs) {
      outputs_.emplace(output.name, &output.info);
      names_.emplace(output.info.path, output.name);
      known_.insert_or_assign(output.info.path, &output.info);
    }
  }

  /// A cycle is met where Nix meets it: depth first, outputs by name.
  verdict cycle(const std::string& drv) const {
    struct step {
      std::string name;
      std::set<std::string> left;
    };
    std::set<std::string> done, open;
    std::vector<step> way;
    const auto enter = [&](const std::string& name) {
      if (!done.insert(name).second) return;
      open.insert(name);
      way.push_back({name, other_outputs(*outputs_.at(name))});
    };
    for (const auto& [first, info] : outputs_) {
      enter(first);
      while (!way.empty()) {
        auto& last = way.back();
        if (last.left.empty()) {
          open.erase(last.name);
          way.pop_back();
          continue;
        }
        const auto next = last.left.extract(last.left.begin()).value();
        if (open.contains(next))
          return build_fault{failure::output_rejected, "cycle detected in build of '" + drv +
                                                           "' in the references of output '" + next +
                                                           "' from output '" + last.name + "'"};
        enter(next);
      }
    }
    return std::nullopt;
  }

  verdict check(const path_info& output, const rules& r) const {
    const auto named = output.path.to_string(store_dir_);
    if (r.size_max && output.nar_size > *r.size_max)
      return too_large("path '" + named + "'", output.nar_size, *r.size_max);
    if (r.closure_size_max)
      if (const auto size = closure(output).second; size > *r.closure_size_max)
        return too_large("closure of path '" + named + "'", size, *r.closure_size_max);
    const paths references{output.references.begin(), output.references.end()};
    auto requisites = r.allowed_requisites || r.disallowed_requisites ? closure(output).first : paths{};
    if (!r.requisites_with_self) requisites.erase(output.path);
    if (auto fault = refers(named, references, r.allowed_references, true)) return fault;
    if (auto fault = refers(named, requisites, r.allowed_requisites, true)) return fault;
    if (auto fault = refers(named, references, r.disallowed_references, false)) return fault;
    return refers(named, requisites, r.disallowed_requisites, false);
  }

private:
  static verdict too_large(const std::string& what, std::uint64_t size, std::uint64_t limit) {
    return build_fault{failure::output_limit, what + " is too large at " + std::to_string(size) + " bytes; limit is " +
                                                  std::to_string(limit) + " bytes"};
  }

  std::set<std::string> other_outputs(const path_info& output) const {
    std::set<std::string> names;
    for (const auto& reference : output.references)
      if (auto found = names_.find(reference); found != names_.end() && reference != output.path)
        names.insert(found->second);
    return names;
  }

  std::pair<paths, std::uint64_t> closure(const path_info& root) const {
    std::pair<paths, std::uint64_t> result;
    std::vector<nix::store_path> left{root.path};
    while (!left.empty()) {
      auto path = std::move(left.back());
      left.pop_back();
      const auto info = known_.find(path);
      if (!result.first.insert(std::move(path)).second || info == known_.end()) continue;
      result.second += info->second->nar_size;
      left.insert(left.end(), info->second->references.begin(), info->second->references.end());
    }
    return result;
  }

  verdict refers(const std::string& named, const paths& used, const words& rule, bool allowed) const {
    if (!rule) return std::nullopt;
    paths listed;
    for (const auto& word : *rule) {
      const auto path = nix::store_path::parse(word, store_dir_);
      const auto output = outputs_.find(word);
      if (!path && output == outputs_.end())
        return build_fault{failure::output_rejected,
                           "derivation contains an illegal reference specifier '" + word + "'"};
      listed.insert(path ? *path : output->second->path);
    }
    std::string bad;
    for (const auto& path : used)
      if (listed.contains(path) != allowed) bad += "\n  " + path.to_string(store_dir_);
    if (bad.empty()) return std::nullopt;
    return build_fault{failure::output_rejected,
                       "output '" + named + "' is not allowed to refer to the following paths:" + bad};
  }

  std::string_view store_dir_;
  std::map<std::string, const path_info*> outputs_;
  std::map<nix::store_path, std::string> names_;
  std::map<nix::store_path, const path_info*> known_;
};

} // namespace

std::optional<build_fault> output_fault(const nix::store_path& drv_path, const nix::derivation& drv,
                                        const std::vector<realised_output>& outputs,
                                        const std::vector<path_info>& inputs, std::string_view store_dir) {
  const auto named = drv_path.to_string(store_dir);
  const auto unreadable = [&](const std::string& why) {
    return build_fault{failure::unsupported, "cannot check the outputs of " + named + ": " + why};
  };
  const auto attributes = nix::attributes::of(drv);
  if (!attributes) return unreadable(attributes.error().what);
  const checker all{outputs, inputs, store_dir};
  if (auto fault = all.cycle(named)) return fault;
  for (const auto& output : outputs) {
    const auto demanded =
        attributes->structured() ? structured_rules(*attributes->structured(), output.name) : plain_rules(*attributes);
    if (!demanded) return unreadable(demanded.error().what);
    if (auto fault = all.check(output.info, *demanded)) return fault;
  }
  return std::nullopt;
}

} // namespace coppice::actors
