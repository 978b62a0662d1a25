#pragma once

#include "runtime/ref.hpp"
#include "runtime/remote.hpp"
#include "runtime/reply_port.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

/// Actors of other nodes, reached like one's own: who calls them does not know (docs/protocol.md, "Between nodes").
namespace coppice::rt {

struct mesh_options {
  std::chrono::milliseconds call_timeout{30'000}; ///< then deadline, at the next sweep
  std::size_t calls_max = 65'536;                 ///< open at once, to all nodes; further ones: overloaded
};

/// Of one node: sessions with other nodes, the calls that are open on them, and the names that other nodes may call.
/// Knows no sockets and no clock but CAF's. Thread-safe; outlives BRIDGE's incarnations. A call through a handle of
/// remote() is answered exactly once, by the actor or by one of
///   peer_down    there is no session with its node, or it ended; then the call may have taken effect
///   congested    too much is on its way to that node; it never started
///   overloaded   calls_max; it never started
///   deadline     no answer within call_timeout; it may take effect yet
/// or what the far reference says. What is sent and not asked is lost without a word when it cannot be delivered.
class mesh final : public handle_names, public std::enable_shared_from_this<mesh> {
public:
  mesh(directory names, node_id me, mesh_options o = {});
  ~mesh() override;
  mesh(const mesh&) = delete;
  mesh& operator=(const mesh&) = delete;

  const node_id& me() const { return me_; }
  /// The actor of that path on another node, whether it can be reached now or not. Monitors of it fire when the session
  /// with its node ends.
  template <class Interface>
  Interface remote(const node_id& node, const std::string& path) {
    return caf::actor_cast<Interface>(remote(node, path, methods_of<Interface>()));
  }
  /// Takes relayed_words to what that node exposes to clients.
  caf::strong_actor_ptr relay(const node_id& node) { return remote(node, {}, relay_methods()); }
  /// From now on other nodes may call this actor of ours, by its path, if its name is in the directory.
  template <class Interface>
  void expose(const std::string& path) {
    expose(path, methods_of<Interface>());
  }
  /// True if there is a session with that node now.
  bool reaches(const node_id& node) const;
  /// Called on BRIDGE's thread, with true when a session with a node begins and with false when it ended; must not block.
  /// Before BRIDGE starts.
  void observe(std::function<void(const node_id&, bool)> hear) { observers_.push_back(std::move(hear)); }

  // -- handle_names -----------------------------------------------------------

  expected<std::string> name(const caf::strong_actor_ptr& actor, const remote_methods& as) override;
  expected<caf::strong_actor_ptr> handle(const node_id& from, const std::string& name,
                                         const remote_methods& as) override;

  // -- for BRIDGE and the simulator -------------------------------------------

  /// A session with that node is open. False if one with a newer process of it is: then this one must end.
  bool on_up(const node_id& node, incarnation born, std::shared_ptr<line> to, std::shared_ptr<outbox> out);
  /// That session is over: its calls are answered by peer_down.
  void on_down(const node_id& node, const std::shared_ptr<line>& to);
  /// A reply or an error came over it; false if no call waits for it.
  bool on_answer(const std::shared_ptr<line>& from, const envelope& head, std::string_view body);
  struct incoming {
    registry::found to;
    caf::message what;
    bool answers;
  };
  /// What a request or cast of that node says, and to whom: no_such_target, unsupported, or what does not pass check().
  expected<incoming> on_words(const node_id& from, const envelope& head, std::string_view body);
  /// Answers what is overdue, by CAF's clock.
  void sweep();
  /// Calls that are open.
  std::size_t open() const;

private:
  friend class remote_ref;
  using time_point = caf::actor_clock::time_point;
  struct session {
    incarnation born;
    std::shared_ptr<line> to;
    std::shared_ptr<outbox> out;
  };
  struct open_call {
    std::shared_ptr<line> to;
    caf::strong_actor_ptr sender, ref;
    caf::message_id mid;
    expected<caf::message> (*decode)(std::string_view);
    time_point due;
  };
  struct ref_key {
    node_id node;
    std::string path;
    const remote_methods* methods;
    friend auto operator<=>(const ref_key& a, const ref_key& b) {
      return std::tie(a.node.value, a.path, a.methods) <=> std::tie(b.node.value, b.path, b.methods);
    }
  };
  caf::strong_actor_ptr remote(const node_id& node, const std::string& path, const remote_methods& methods);
  void expose(const std::string& path, const remote_methods& methods);
  /// A remote_ref's enqueue().
  void call(const node_id& node, const std::string& path, const remote_methods& methods, const caf::strong_actor_ptr& ref,
            caf::mailbox_element& x);
  static bool post(const session& s, frame f);
  static void answer(const open_call& call, caf::error e);
  std::vector<caf::strong_actor_ptr> refs_of(const node_id& node) const;

  const directory names_;
  const node_id me_;
  const mesh_options options_;
  void tell_observers(const node_id& node, bool up) const;
  std::vector<std::function<void(const node_id&, bool)>> observers_;
  mutable std::mutex mutex_; ///< never held while an actor is called
  std::map<node_id, session> sessions_;
  std::map<std::uint64_t, open_call> calls_; ///< by id, hence by age
  std::uint64_t last_call_ = 0;
  std::map<ref_key, caf::weak_actor_ptr> refs_;
  std::size_t refs_purged_at_ = 1'024; ///< those nobody holds any more are forgotten when there are so many
  std::map<std::string, std::set<const remote_methods*>, std::less<>> exposed_;
  std::size_t exposed_purged_at_ = 1'024; ///< likewise those that have ended
};

} // namespace coppice::rt
