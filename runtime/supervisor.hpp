#pragma once

#include "runtime/child_group.hpp"
#include "runtime/ref.hpp"

#include <caf/allowed_unsafe_message_type.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

/// Supervision trees: who starts, stops and restarts whom.
namespace coppice::rt {

struct child_options {
  restart_kind kind = restart_kind::permanent;
  std::size_t own_restarts_max = 0;       ///< if not 0, its deaths are not counted against its supervisor; more than so
                                          ///< many in the window of that, and it ends for good: too_many_restarts
  std::chrono::milliseconds grace{5'000}; ///< to end after being asked; then it is killed; if even that does not
                                          ///< end it within 0.5 s, its handler is stuck and it is abandoned
  std::chrono::milliseconds start_timeout{30'000}; ///< for its constructor; longer is a death
  ref_options ref{};
};

struct supervisor_options {
  strategy how = strategy::one_for_one;
  restart_options restarts{};
  std::size_t max_children = 10'000; ///< of a dynamic supervisor; further ones: overloaded
  std::uint64_t seed = 0;            ///< spreads backoff; mixed with the path
};

/// One child as its supervisor keeps it.
struct child_spec {
  std::string name; ///< last part of its path
  ref_actor::factory make;
  child_options options;
  caf::strong_actor_ptr ref; ///< null in an order: the supervisor declares it
};

/// The request to start a child of class State at run time, for supervisor_actor. Arguments are copied into each
/// incarnation. Of a dynamic supervisor; a child that ends for good leaves the directory.
template <class State, class... Ts>
child_spec make_child(std::string name, child_options options, Ts... args) {
  return {std::move(name),
          [args...](caf::actor_system& system) {
            return caf::actor_cast<caf::strong_actor_ptr>(rt::spawn<State>(system, args...));
          },
          options,
          {}};
}

using start_child_atom = caf::atom_constant<caf::atom("sup_start")>;
using stop_child_atom = caf::atom_constant<caf::atom("sup_stop")>;
using supervisor_tick_atom = caf::atom_constant<caf::atom("sup_tick")>;
using child_up_atom = caf::atom_constant<caf::atom("sup_up")>;
using child_late_atom = caf::atom_constant<caf::atom("sup_late")>;
using sweep_atom = caf::atom_constant<caf::atom("sup_sweep")>;

/// SUPERVISOR.
using supervisor_actor = caf::typed_actor<
    // Starts a child and gives its stable handle (caf::actor_cast it); conflict if the name is taken, unsupported if
    // not dynamic, overloaded beyond max_children.
    caf::replies_to<start_child_atom, child_spec>::with<caf::strong_actor_ptr>,
    // Begins to end a child for good and forget it; not_found if there is none. Monitor its handle to see the end.
    caf::replies_to<stop_child_atom, std::string>::with<bool>,
    // INTERNAL: starts what is due; the number tells stale ticks.
    caf::reacts_to<supervisor_tick_atom, std::uint64_t>,
    // INTERNAL: this child's incarnation is ready.
    caf::reacts_to<child_up_atom, std::uint64_t, std::uint64_t>,
    // INTERNAL: grace or start_timeout of this child's incarnation is over.
    caf::reacts_to<child_late_atom, std::uint64_t, std::uint64_t>,
    // INTERNAL: root only.
    caf::reacts_to<sweep_atom>>;

/// Starts a child of class State under a dynamic supervisor: `start_child<worker>(self, workers, "w-7", {}, args…)
/// .then([](caf::strong_actor_ptr& w) {…}, [](caf::error& e) {…})`.
template <class State, class Self, class... Ts>
auto start_child(Self* self, const supervisor_actor& supervisor, std::string name, child_options options, Ts... args) {
  return self->call(supervisor, start_child_atom::value,
                    make_child<State>(std::move(name), options, std::move(args)...));
}

/// The declaration of a (sub)tree. Handles exist and may be used from the moment of declaration; nothing runs before
/// run().
class tree {
public:
  tree(const directory& dir, std::string path, supervisor_options options = {});
  ~tree();
  tree(tree&&) noexcept;

  /// Declares a child with default options; `args` are copied into each incarnation.
  template <class State, class... Ts>
  typename State::interface child(const std::string& name, Ts... args) {
    return child_with<State>(name, child_options{}, std::move(args)...);
  }
  /// The same with options. A duplicate name is a bug: std::logic_error.
  template <class State, class... Ts>
  typename State::interface child_with(const std::string& name, child_options options, Ts... args) {
    return caf::actor_cast<typename State::interface>(add(make_child<State>(name, options, std::move(args)...)));
  }
  /// The handle of a child that is declared later on this tree by child() under the same name; for cycles.
  template <class Interface>
  Interface forward(const std::string& name, ref_options options = {}) {
    return caf::actor_cast<Interface>(reserve(name, options));
  }
  /// Declares an inner supervisor; the result lives as long as this tree. Its handle serves start_child.
  tree& node(const std::string& name, supervisor_options options = {}, child_options as_child = node_defaults());
  /// The handle of this (inner) supervisor itself.
  supervisor_actor handle() const;
  const std::string& path() const;
  /// Inner supervisors stop their children one by one, so they get a long grace.
  static child_options node_defaults();

  /// Starts the root and gives its stable reference. `ended` is called once, on an actor's thread, when the root has
  /// ended and every name below is stopped: with too_many_restarts when it gave up, shutdown after shut_down(). Then
  /// the reference's monitors fire.
  caf::strong_actor_ptr run(std::function<void(const caf::error&)> ended = {});

private:
  struct impl;
  caf::strong_actor_ptr add(child_spec spec);
  caf::strong_actor_ptr reserve(const std::string& name, ref_options options);
  std::unique_ptr<impl> impl_;
};

/// Asks a root to stop its tree, children in reverse order; does not wait.
void shut_down(const caf::strong_actor_ptr& root);
/// The same, and waits at most `d`; false if it has not ended by then. Not from an actor.
bool shut_down_and_wait(caf::actor_system& system, const caf::strong_actor_ptr& root, std::chrono::milliseconds d);

} // namespace coppice::rt

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(coppice::rt::child_spec)
