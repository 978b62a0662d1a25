#pragma once

#include "messages/status.hpp"
#include "runtime/actor.hpp"

#include <caf/monitorable_actor.hpp>

#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

/// Stable names. A handle to a supervised actor is in truth a handle to its ref_actor and never goes stale: every
/// request sent through it is answered exactly once, by the actor or by one of these errors of ours:
///   restarted    the actor died with the request in hand; it may have taken effect
///   unavailable  it never started; safe to repeat
///   overloaded   max_in_flight requests were open already; it never started
///   deadline     no answer within call_timeout; it may take effect yet
///   crashed      this request made the actor throw
namespace coppice::rt {

struct ref_options {
  std::size_t max_buffered = 1024;                ///< messages held while restarting; further requests: unavailable
  std::size_t max_in_flight = 4096;               ///< requests forwarded and unanswered; further ones: overloaded
  std::chrono::milliseconds call_timeout{30'000}; ///< then deadline, at the next sweep
  std::chrono::milliseconds restart_wait{2'000};  ///< a message waits at most this long for a restart
};

/// A CAF actor without mailbox or thread: enqueue() forwards inline, on the sender's thread, to whatever incarnation
/// serves now.
class ref_actor final : public caf::monitorable_actor {
public:
  ref_actor(caf::actor_config& cfg, std::string path, ref_options options);

  const char* name() const override { return "ref"; }
  const std::string& path() const { return path_; }
  using caf::monitorable_actor::enqueue;
  void enqueue(caf::mailbox_element_ptr x, caf::execution_unit* eu) override;
  /// Monitors fire once per incarnation, and at once if the name is stopped for good, with why it was.
  void attach(caf::attachable_ptr ptr) override;

  // -- for supervisors --------------------------------------------------------

  using factory = std::function<caf::strong_actor_ptr(caf::actor_system&)>;
  /// Starts an incarnation and gives its address; `on_up` runs on it as soon as its behaviour is ready.
  caf::strong_actor_ptr rebirth(const factory& make, std::function<void()> on_up);
  /// From now on mail waits for the next incarnation.
  void suspend();
  /// What status() says until the next incarnation: its supervisor starts it at this time (actor clock).
  void restarts_at(caf::actor_clock::time_point t);
  /// Cuts the present incarnation off, whatever it does; requests in flight: restarted.
  void lose(const caf::error& why);
  /// The name serves no more; everything is answered, monitors fire. A later rebirth revives it.
  void stop(const caf::error& why);

  // -- for the directory ------------------------------------------------------

  /// Answers what has waited too long by `now` (actor clock).
  void sweep(caf::actor_clock::time_point now);
  actor_status status(caf::actor_clock::time_point now) const;
  /// Incarnations so far.
  std::uint64_t births() const;
  /// The present incarnation, or null.
  caf::strong_actor_ptr target() const;

private:
  using time_point = caf::actor_clock::time_point;
  struct open_call {
    caf::strong_actor_ptr sender;
    caf::message_id id;
    time_point since;
  };
  struct held_mail {
    time_point since;
    caf::mailbox_element_ptr what;
  };

  time_point now() const;
  void track(caf::mailbox_element& x, time_point now);
  void complete(caf::mailbox_element_ptr x, caf::execution_unit* eu);
  void suspend(std::uint64_t generation);
  void bind(const caf::strong_actor_ptr& target);
  bool mailbox_closed() const;
  void serve(std::uint64_t generation, const caf::strong_actor_ptr& target);
  void unbind(std::uint64_t generation, const caf::error& why);
  void retire(std::unique_lock<std::mutex> lock, actor_state next, const caf::error& why);
  void answer(const open_call& call, caf::error e, caf::execution_unit* eu = nullptr);
  void refuse(const caf::mailbox_element& x, caf::error e, caf::execution_unit* eu = nullptr);

  const std::string path_;
  const ref_options options_;
  mutable std::mutex mutex_; // taken before monitorable_actor's own
  actor_state state_ = actor_state::starting;
  caf::strong_actor_ptr target_;
  caf::scheduled_actor* scheduled_ = nullptr; // *target_
  instrumented* vitals_ = nullptr;            // part of *target_
  std::uint64_t generation_ = 0;              // of the present incarnation; tells late news of former ones
  std::uint64_t births_ = 0;
  time_point restart_due_{};
  std::uint64_t last_call_ = 0;
  std::optional<caf::error> last_exit_;
  caf::error stopped_for_;
  std::string kind_;
  std::map<std::uint64_t, open_call> in_flight_; // by id, hence by age
  std::deque<held_mail> held_;
};

/// How directory::kill ends an actor.
enum class kill_mode : std::uint8_t {
  exit, ///< an exit message that cannot be refused
  crash ///< the actor throws std::runtime_error("killed by operator")
};

/// What became of an actor, as its supervisor sees it.
struct actor_change {
  enum class kind : std::uint8_t {
    started,   ///< it serves for the first time
    restarted, ///< it serves again
    died,      ///< it will be started again after `delay`
    ended,     ///< by a fault, and it is not started again
    given_up,  ///< it died too often
    escalated  ///< a supervisor that gave up a child ends for it
  };
  kind what = kind::started;
  std::string path;
  caf::error reason{};
  std::chrono::nanoseconds delay{0};
  bool passing = false; ///< it came at run time
};

/// path → stable reference, for the supervisors, the mesh and the admin tool. Thread-safe. Copies are the same
/// directory, so that it lives as long as the last actor that needs it.
class directory {
public:
  explicit directory(caf::actor_system& system);

  /// Makes the reference of a new name; null if the name is taken.
  caf::strong_actor_ptr declare(const std::string& path, ref_options options = {});
  /// The reference, or null.
  caf::strong_actor_ptr find(const std::string& path) const;
  /// The reference as a typed handle, which the caller must know to be right; null if there is none.
  template <class Interface>
  Interface find_as(const std::string& path) const {
    return caf::actor_cast<Interface>(find(path));
  }
  /// Stops the name with `why` and forgets it; handles that exist give `unavailable`.
  void retire(const std::string& path, const caf::error& why);
  /// The state of every actor, by path; asks nobody, so it works when actors are stuck.
  std::vector<actor_status> describe() const;
  /// Answers every request that has waited too long; the root supervisor calls it each sweep_period.
  void sweep() const;
  static constexpr std::chrono::milliseconds sweep_period{500};
  /// Stops every name but `except`; calls fail from now on instead of waiting.
  void stop_all(const caf::error& why, const caf::strong_actor_ptr& except = nullptr) const;
  /// Ends the present incarnation of `path` ahead of its other mail; false if nobody serves there. A handler that
  /// never returns cannot be ended.
  bool kill(const std::string& path, kill_mode how = kill_mode::exit) const;
  /// Incarnations of that path so far; 0 if it has no name.
  std::uint64_t births(const std::string& path) const;
  std::size_t size() const;
  /// From now on `hear` is called on supervisors' threads, for each change, and must not block. Before any tree runs.
  void observe(std::function<void(const actor_change&)> hear);
  /// For supervisors.
  void tell(const actor_change& change) const;
  caf::actor_system& system() const { return shared_->system; }

private:
  struct shared {
    explicit shared(caf::actor_system& s) : system(s) {}
    caf::actor_system& system;
    mutable std::shared_mutex mutex;
    std::map<std::string, caf::strong_actor_ptr> refs;
    std::function<void(const actor_change&)> observer;
  };
  std::vector<caf::strong_actor_ptr> all() const;
  std::shared_ptr<shared> shared_;
};

/// The reference behind a pointer that directory::declare or find gave.
ref_actor& as_ref(const caf::strong_actor_ptr& p);

} // namespace coppice::rt
