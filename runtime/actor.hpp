#pragma once

#include "messages/errors.hpp"

#include <caf/actor_cast.hpp>
#include <caf/actor_clock.hpp>
#include <caf/actor_system.hpp>
#include <caf/atom.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>
#include <caf/typed_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

/// How one actor is written: a class with a constructor that runs on the actor and a make_behavior().
///
///   class lock_manager {
///   public:
///     using interface = lock_actor;                        // a caf::typed_actor
///     static constexpr const char* name = "lock-manager";
///     lock_manager(rt::self<lock_actor>* self, store_actor store);
///     interface::behavior_type make_behavior();
///   };
namespace coppice::rt {

/// Counters of one incarnation that other threads may read at any time.
struct vitals {
  std::atomic<std::uint64_t> enqueued{0};
  std::atomic<std::uint64_t> handled{0};
  std::atomic<std::uint64_t> stray_errors{0}; ///< failures that answered a plain send
  std::atomic<std::int64_t> busy_since{0};    ///< actor-clock ns at which the present handler began, 0 = idle
  std::atomic<std::int64_t> started{0};       ///< actor-clock ns at which the constructor began

  /// Sets the sentence shown as `doing` by the admin tool; at most doing_bytes_max of it are kept.
  void set_doing(std::string text);
  std::string doing() const;
  static constexpr std::size_t doing_bytes_max = 200;

private:
  mutable std::mutex mutex_;
  std::string doing_;
};

/// What a supervisor tells an actor that is about to be constructed on the same thread.
struct birth {
  std::string path;                                     ///< in the directory
  caf::weak_actor_ptr ref;                              ///< its stable reference
  std::function<void(const caf::strong_actor_ptr&)> up; ///< called on the actor: its behaviour is ready
  std::function<void()> doomed;                         ///< called on the actor: it will handle no further message
};

/// Nanoseconds of CAF's clock, which is virtual under the testing scheduler.
inline std::int64_t ns(caf::actor_clock::time_point t) {
  return t.time_since_epoch().count();
}

namespace detail {
/// Set around a factory call: spawn() launches at once, so that hooks must be there before the constructor returns.
/// The first actor constructed inside takes the birth.
class birth_scope {
public:
  explicit birth_scope(const birth& b);
  ~birth_scope();
  birth_scope(const birth_scope&) = delete;
  birth_scope& operator=(const birth_scope&) = delete;
};

/// The message that makes an actor throw (directory::kill).
using crash_atom = caf::atom_constant<caf::atom("rt_crash")>;
bool is_crash_order(const caf::mailbox_element& x);
/// `crashed`, with the text of the exception and the atom of the message that was being handled.
caf::error crash_error(std::exception_ptr& p, const std::string& message_kind);
/// The leading atom of a message, or empty.
std::string message_kind(const caf::mailbox_element& x);
} // namespace detail

/// The part of an actor that does not depend on its interface.
class instrumented {
public:
  virtual ~instrumented() = default;
  vitals counters;

protected:
  instrumented();
  void announce_up(const caf::strong_actor_ptr& me);
  void announce_doom();
  birth birth_;
  std::string handling_; ///< kind of the message that threw
};

/// What an actor's class sees of CAF: the typed event-based actor with safe defaults (T3, T4, T13) and short names.
template <class Interface>
class self : public Interface::base, public instrumented {
public:
  using base = typename Interface::base;

  /// A request without CAF's timeout, which is never cancelled (T6): stable references and the mesh answer every
  /// request in finite time. Always follow with `.then(ok, failed)`, both lambdas (T3).
  template <class Handle, class... Ts>
  auto call(const Handle& to, Ts&&... xs) {
    return this->request(to, caf::infinite, std::forward<Ts>(xs)...);
  }
  /// Sends to this incarnation after `delay`; cannot be cancelled, so put an epoch into the message (T9).
  template <class Rep, class Period, class... Ts>
  void later(std::chrono::duration<Rep, Period> delay, Ts&&... xs) {
    this->delayed_send(incarnation(), delay, std::forward<Ts>(xs)...);
  }
  /// The stable name of this actor, to be given to others; this incarnation if it is not supervised.
  Interface stable() {
    if (auto ref = caf::actor_cast<caf::strong_actor_ptr>(birth_.ref)) return caf::actor_cast<Interface>(ref);
    return incarnation();
  }
  /// This very incarnation, for messages that a successor must not see.
  Interface incarnation() { return caf::actor_cast<Interface>(caf::strong_actor_ptr{this->ctrl()}); }
  /// Path in the directory; the class's name if it is not supervised.
  const std::string& path() const { return birth_.path; }
  /// Now, by CAF's clock; virtual in tests.
  caf::actor_clock::time_point now() { return this->clock().now(); }
  /// What the actor is doing now, in its own words, for the admin tool.
  void doing(std::string text) { counters.set_doing(std::move(text)); }

protected:
  explicit self(caf::actor_config& cfg) : base(cfg) {}
};

/// The actor that runs a State: constructs it on the actor (a throw there is a supervised crash), counts, and tells
/// the stable reference before CAF answers when it is doomed.
template <class State>
class actor_impl final : public self<typename State::interface> {
public:
  using interface = typename State::interface;
  using base = self<interface>;
  using behavior_type = typename interface::behavior_type;

  template <class... Ts>
  explicit actor_impl(caf::actor_config& cfg, Ts&&... xs) : base(cfg) {
    if (this->birth_.path.empty()) this->birth_.path = State::name;
    init_ = [this, args = std::make_tuple(std::forward<Ts>(xs)...)]() mutable {
      std::apply([this](auto&... a) { state_.emplace(static_cast<base*>(this), std::move(a)...); }, args);
    };
    this->set_default_handler(caf::drop);
    this->set_error_handler([this](caf::scheduled_actor*, caf::error&) { ++this->counters.stray_errors; });
    this->set_down_handler([](caf::scheduled_actor*, caf::down_msg&) {});
    this->set_exception_handler([this](caf::scheduled_actor*, std::exception_ptr& p) -> caf::error {
      // doom before CAF answers the request that threw: a caller's retry waits for the next incarnation
      this->announce_doom();
      return detail::crash_error(p, this->handling_);
    });
  }

  const char* name() const override { return State::name; }

  using base::enqueue;
  void enqueue(caf::mailbox_element_ptr x, caf::execution_unit* eu) override {
    this->counters.enqueued.fetch_add(1, std::memory_order_relaxed);
    base::enqueue(std::move(x), eu);
  }

  using base::consume;
  caf::invoke_message_result consume(caf::mailbox_element& x) override {
    timed_handler timed{*this};
    try {
      if (detail::is_crash_order(x)) throw std::runtime_error("killed by operator");
      auto result = base::consume(x);
      if (this->getf(caf::abstract_actor::is_shutting_down_flag)) this->announce_doom();
      return result;
    } catch (...) {
      this->handling_ = detail::message_kind(x);
      throw;
    }
  }

  void on_exit() override {
    this->announce_doom();
    state_.reset();
    init_ = nullptr;
    base::on_exit();
  }

protected:
  behavior_type make_behavior() override {
    this->counters.started.store(ns(this->now()), std::memory_order_relaxed);
    auto init = std::exchange(init_, nullptr);
    init();
    auto behavior = state_->make_behavior();
    this->announce_up(caf::strong_actor_ptr{this->ctrl()});
    return behavior;
  }

private:
  struct timed_handler {
    explicit timed_handler(actor_impl& a) : owner(a) {
      owner.counters.busy_since.store(ns(owner.now()), std::memory_order_relaxed);
    }
    ~timed_handler() {
      owner.counters.busy_since.store(0, std::memory_order_relaxed);
      owner.counters.handled.fetch_add(1, std::memory_order_relaxed);
    }
    timed_handler(const timed_handler&) = delete;
    timed_handler& operator=(const timed_handler&) = delete;
    actor_impl& owner;
  };
  std::function<void()> init_;
  std::optional<State> state_;
};

/// Starts an actor of class State; prefer a supervisor's child. Arguments are moved or copied into the actor.
template <class State, class... Ts>
typename State::interface spawn(caf::actor_system& system, Ts&&... xs) {
  return system.spawn<actor_impl<State>>(std::forward<Ts>(xs)...);
}

/// An answer to be given later: `rt::reply<T> out{self}; …; return out;` in a handler that returns caf::result<T>.
/// When its last copy goes away unanswered it answers `restarted`, which CAF never does by itself (T1).
template <class... Ts>
class reply {
public:
  /// Takes over the answer to the message being handled; must be made inside the handler.
  template <class Self>
  explicit reply(Self* self) : box_(std::make_shared<box>(self->template make_response_promise<Ts...>())) {}
  /// Answers with values or a caf::error; later calls have no effect.
  template <class... Us>
  void deliver(Us&&... xs) const {
    if (box_->promise.pending()) box_->promise.deliver(std::forward<Us>(xs)...);
  }
  /// Answers with an error of ours.
  void fail(ec code, std::string what = {}) const { deliver(make_error(code, std::move(what))); }
  /// Answers with a value or its error.
  template <class T>
  void settle(expected<T> x) const {
    if (x)
      deliver(std::move(*x));
    else
      deliver(make_error(x.error()));
  }
  bool pending() const { return box_->promise.pending(); }
  operator caf::result<Ts...>() const { return box_->promise; }

private:
  struct box {
    explicit box(caf::typed_response_promise<Ts...> p) : promise(std::move(p)) {}
    box(const box&) = delete;
    box& operator=(const box&) = delete;
    ~box() {
      if (promise.pending()) promise.deliver(make_error(ec::restarted, "dropped without an answer"));
    }
    caf::typed_response_promise<Ts...> promise;
  };
  std::shared_ptr<box> box_;
};

/// Enqueues ahead of ordinary mail (T5); `reason` exit_reason::kill cannot be refused.
void send_exit(const caf::strong_actor_ptr& to, caf::error reason);

/// The reason of an end for people: "normal", "killed", "crashed: …".
std::string describe_reason(const caf::error& reason);

} // namespace coppice::rt
