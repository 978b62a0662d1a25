#pragma once

#include "messages/check.hpp"
#include "messages/wire.hpp"

#include <caf/message.hpp>
#include <caf/typed_actor.hpp>

#include <map>
#include <string>
#include <string_view>

/// Which actors may be called from other machines, by which name, with which role. The methods follow from the typed
/// interface: every handler (atom, caller, Msg) -> Reply is one, named by its atom.
namespace coppice::rt {

/// Bounds on a message from another machine, tighter than those for what we wrote ourselves.
inline constexpr wire::limits request_limits{.depth_max = 16, .elements_max = 1 << 16, .string_bytes_max = 1 << 20};

struct exposed_method {
  role least = role::observer; ///< INV-15
  /// Bytes to the message for the actor, decoded and checked.
  expected<caf::message> (*decode)(const caller& who, std::string_view body);
  /// The actor's answer to bytes; false if it is not of the promised type.
  bool (*encode)(const caf::type_erased_tuple& answer, std::string& bytes);
};

namespace detail {

template <class Signature>
struct exposed_signature {
  static void add(std::map<std::string, exposed_method, std::less<>>&) {}
};
template <caf::atom_value Atom, class Msg, class Reply>
struct exposed_signature<
    caf::typed_mpi<caf::detail::type_list<caf::atom_constant<Atom>, caller, Msg>, caf::output_tuple<Reply>>> {
  static expected<caf::message> decode(const caller& who, std::string_view body) {
    auto m = wire::decode<Msg>(body, request_limits);
    if (!m) return tl::unexpected(m.error());
    if (auto ok = check(*m); !ok) return tl::unexpected(ok.error());
    return caf::make_message(caf::atom_constant<Atom>::value, who, std::move(*m));
  }
  static bool encode(const caf::type_erased_tuple& answer, std::string& bytes) {
    if (!answer.match_elements<Reply>()) return false;
    bytes = wire::encode(answer.get_as<Reply>(0));
    return true;
  }
  static void add(std::map<std::string, exposed_method, std::less<>>& methods) {
    methods.emplace(caf::to_string(Atom), exposed_method{role::observer, &decode, &encode});
  }
};

} // namespace detail

/// Filled before the bridge starts, constant from then on.
class registry {
public:
  /// Exposes all callable handlers of an actor under `target`. Methods named in `least` need at least that role, all
  /// others role observer; naming one that does not exist is a bug: std::logic_error.
  template <class... Signatures>
  void expose(std::string target, const caf::typed_actor<Signatures...>& handle,
              const std::map<std::string, role>& least = {}) {
    methods_by_name methods;
    (detail::exposed_signature<Signatures>::add(methods), ...);
    add(std::move(target), caf::actor_cast<caf::strong_actor_ptr>(handle), std::move(methods), least);
  }

  struct found {
    caf::strong_actor_ptr actor;
    exposed_method method;
  };
  /// The method, if `who` may call it: else no_such_target, unsupported or forbidden.
  expected<found> find(std::string_view target, std::string_view method, const caller& who) const;

private:
  using methods_by_name = std::map<std::string, exposed_method, std::less<>>;
  struct exposed_actor {
    caf::strong_actor_ptr handle;
    methods_by_name methods;
  };
  void add(std::string target, caf::strong_actor_ptr handle, methods_by_name methods,
           const std::map<std::string, role>& least);
  std::map<std::string, exposed_actor, std::less<>> actors_;
};

} // namespace coppice::rt
