#pragma once

#include "messages/check.hpp"
#include "messages/check_farm.hpp"
#include "messages/wire.hpp"
#include "runtime/exposed.hpp"

#include <caf/mailbox_element.hpp>
#include <caf/message.hpp>
#include <caf/typed_actor.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// How a typed interface crosses machines: every handler (atom, Msg) or (atom, Msg, Handle), with an answer or without,
/// becomes a method named by its atom and its message, e.g. "place lend". Handlers of other shapes stay at home.
namespace coppice::rt {

/// Bounds on what another node says: an answer may be as large as what a client is sent.
inline constexpr wire::limits node_limits{.depth_max = 24, .elements_max = 1 << 20, .string_bytes_max = 8 << 20};

/// What a client of one node asks of another node's exposed actor (runtime/exposed.hpp); answered by relayed_answer.
struct relayed_words {
  std::string target, method, body;
  caller who;
  COPPICE_STRUCT(relayed_words, 1, target, 2, method, 3, body, 4, who)
};
struct relayed_answer {
  std::string body;
  COPPICE_STRUCT(relayed_answer, 1, body)
};
inline constexpr auto relay_v = caf::atom_constant<caf::atom("rt_relay")>::value;

struct remote_method;
using remote_methods = std::vector<remote_method>;
/// What of an interface can be said from another machine; constant.
template <class Interface>
const remote_methods& methods_of();

/// Turns handles into names and back; mesh is one.
class handle_names {
public:
  virtual ~handle_names() = default;
  /// The name by which another machine may call this actor from now on; `invalid` for one that has none.
  virtual expected<std::string> name(const caf::strong_actor_ptr& actor, const remote_methods& as) = 0;
  /// The actor of that name at the node that gave it; `bad_message` for a name that was not its to give.
  virtual expected<caf::strong_actor_ptr> handle(const node_id& from, const std::string& name,
                                                 const remote_methods& as) = 0;
};

/// A message as it travels: its bytes, and the name of the actor given along, if any.
struct remote_words {
  std::string body;
  std::string with;
  std::optional<relayed_words> relayed = {}; ///< a client's, which go on as they came
};

struct remote_method {
  std::string name;
  bool answers;
  bool (*matches)(const caf::type_erased_tuple& message);
  expected<remote_words> (*encode)(const caf::type_erased_tuple& message, handle_names& names);
  /// Bytes to the message for the actor, decoded and checked.
  expected<caf::message> (*decode)(std::string_view body, const std::string& with, const node_id& from,
                                   handle_names& names);
  bool (*encode_answer)(const caf::type_erased_tuple& answer, std::string& bytes);
  expected<caf::message> (*decode_answer)(std::string_view bytes);
};

namespace detail {

/// An answer that is only yes or no.
struct yes_or_no {
  bool value = false;
  COPPICE_STRUCT(yes_or_no, 1, value)
};
inline expected<void> check(const yes_or_no&) { return {}; }

template <class T>
const T& to_wire(const T& x) {
  return x;
}
inline yes_or_no to_wire(bool x) { return {x}; }

template <class T>
struct from_wire {
  using type = T;
  static T value(T x) { return x; }
};
template <>
struct from_wire<bool> {
  using type = yes_or_no;
  static bool value(yes_or_no x) { return x.value; }
};

template <class T>
expected<T> decode_checked(std::string_view bytes) {
  auto m = wire::decode<typename from_wire<T>::type>(bytes, node_limits);
  if (!m) return tl::unexpected(m.error());
  using coppice::check;
  if (auto ok = check(*m); !ok) return tl::unexpected(ok.error());
  return from_wire<T>::value(std::move(*m));
}

template <class Answer>
struct remote_answer {
  static constexpr bool is = true;
  static bool encode(const caf::type_erased_tuple& answer, std::string& bytes) {
    if (!answer.match_elements<Answer>()) return false;
    bytes = wire::encode(to_wire(answer.get_as<Answer>(0)));
    return true;
  }
  static expected<caf::message> decode(std::string_view bytes) {
    auto a = decode_checked<Answer>(bytes);
    if (!a) return tl::unexpected(a.error());
    return caf::make_message(std::move(*a));
  }
};
template <>
struct remote_answer<void> {
  static constexpr bool is = false;
  static bool encode(const caf::type_erased_tuple&, std::string&) { return true; }
  static expected<caf::message> decode(std::string_view) { return caf::message{}; }
};

template <caf::atom_value Atom>
bool begins_with(const caf::type_erased_tuple& m) {
  return !m.empty() && m.match_element<caf::atom_value>(0) && m.get_as<caf::atom_value>(0) == Atom;
}

template <class Signature>
struct remote_signature {
  static void add(remote_methods&) {}
};
template <caf::atom_value Atom, reflected Msg, class Answer>
struct remote_signature<
    caf::typed_mpi<caf::detail::type_list<caf::atom_constant<Atom>, Msg>, caf::output_tuple<Answer>>> {
  using answer = remote_answer<Answer>;
  static bool matches(const caf::type_erased_tuple& m) {
    return m.size() == 2 && begins_with<Atom>(m) && m.match_element<Msg>(1);
  }
  static expected<remote_words> encode(const caf::type_erased_tuple& m, handle_names&) {
    return remote_words{wire::encode(m.get_as<Msg>(1)), {}};
  }
  static expected<caf::message> decode(std::string_view body, const std::string&, const node_id&, handle_names&) {
    auto m = decode_checked<Msg>(body);
    if (!m) return tl::unexpected(m.error());
    return caf::make_message(caf::atom_constant<Atom>::value, std::move(*m));
  }
  static void add(remote_methods& all) {
    all.push_back({caf::to_string(Atom) + " " + std::string(Msg::struct_name), answer::is, &matches, &encode, &decode,
                   &answer::encode, &answer::decode});
  }
};
template <caf::atom_value Atom, reflected Msg, class... Signatures, class Answer>
struct remote_signature<caf::typed_mpi<caf::detail::type_list<caf::atom_constant<Atom>, Msg, caf::typed_actor<Signatures...>>,
                                       caf::output_tuple<Answer>>> {
  using handle = caf::typed_actor<Signatures...>;
  using answer = remote_answer<Answer>;
  static bool matches(const caf::type_erased_tuple& m) {
    return m.size() == 3 && begins_with<Atom>(m) && m.match_element<Msg>(1) && m.match_element<handle>(2);
  }
  static expected<remote_words> encode(const caf::type_erased_tuple& m, handle_names& names) {
    auto with = names.name(caf::actor_cast<caf::strong_actor_ptr>(m.get_as<handle>(2)), methods_of<handle>());
    if (!with) return tl::unexpected(with.error());
    return remote_words{wire::encode(m.get_as<Msg>(1)), std::move(*with)};
  }
  static expected<caf::message> decode(std::string_view body, const std::string& with, const node_id& from,
                                       handle_names& names) {
    auto m = decode_checked<Msg>(body);
    if (!m) return tl::unexpected(m.error());
    auto actor = names.handle(from, with, methods_of<handle>());
    if (!actor) return tl::unexpected(actor.error());
    return caf::make_message(caf::atom_constant<Atom>::value, std::move(*m), caf::actor_cast<handle>(std::move(*actor)));
  }
  static void add(remote_methods& all) {
    all.push_back({caf::to_string(Atom) + " " + std::string(Msg::struct_name), answer::is, &matches, &encode, &decode,
                   &answer::encode, &answer::decode});
  }
};

template <class Interface>
struct remote_interface;
template <class... Signatures>
struct remote_interface<caf::typed_actor<Signatures...>> {
  static remote_methods make() {
    remote_methods all;
    (remote_signature<Signatures>::add(all), ...);
    return all;
  }
};

} // namespace detail

/// What relayed_words become.
const remote_methods& relay_methods();

template <class Interface>
const remote_methods& methods_of() {
  static const remote_methods all = detail::remote_interface<Interface>::make();
  return all;
}

} // namespace coppice::rt
