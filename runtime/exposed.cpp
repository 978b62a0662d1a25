#include "runtime/exposed.hpp"

#include <fmt/core.h>

#include <stdexcept>

namespace coppice::rt {

void registry::add(std::string target, caf::strong_actor_ptr handle, methods_by_name methods,
                   const std::map<std::string, role>& least) {
  for (const auto& [name, needed] : least) {
    auto i = methods.find(name);
    if (i == methods.end()) throw std::logic_error("no handler to be exposed as " + target + "." + name);
    i->second.least = needed;
  }
  auto name = target;
  if (!actors_.emplace(std::move(target), exposed_actor{std::move(handle), std::move(methods)}).second) {
    throw std::logic_error("exposed twice: " + name);
  }
}

expected<registry::found> registry::find(std::string_view target, std::string_view method, const caller& who) const {
  auto actor = actors_.find(target);
  if (actor == actors_.end()) {
    return fail(ec::no_such_target, fmt::format("nothing is exposed as '{}'", target.substr(0, 100)));
  }
  auto m = actor->second.methods.find(method);
  if (m == actor->second.methods.end()) {
    return fail(ec::unsupported, fmt::format("'{}' has no method '{}'", target, method.substr(0, 100)));
  }
  if (who.role < m->second.least) {
    return fail(ec::forbidden, fmt::format("{}.{} needs role {}, and key {} has role {}", target, method,
                                           to_string(m->second.least), who.name, to_string(who.role)));
  }
  return found{actor->second.handle, m->second};
}

} // namespace coppice::rt
