#pragma once

#include "messages/events.hpp"
#include "runtime/clock.hpp"

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace coppice::actors {

/// What happened on this node, the last `kept_max` events of it, numbered. Every actor adds to it as it adds a line to
/// the log: without a mailbox in between, so that nothing piles up and nobody waits (docs/decisions/0014). It lives as
/// long as the process: OBSERVATORY serves it and may die. Thread-safe.
class event_log {
public:
  /// `stream` is unlike that of any other process of this node.
  event_log(const rt::clock& clock, node_id node, std::uint64_t stream, std::size_t kept_max = farm_events_kept_max);

  void add(farm_event e);
  void add(std::vector<farm_event> es);
  /// What `q` asks for, without waiting.
  event_page read(const follow_events& q) const;
  /// True if read() would tell something new.
  bool has_news(const follow_events& q) const;
  /// From now on the next event calls `wake` once, on its thread.
  void wake_once(std::function<void()> wake);

  /// Kept by those who know; read together.
  struct gauges {
    std::atomic<std::uint64_t> requests_open{0}, steps_waiting{0}, io_steps_waiting{0}, slots_free{0}, io_slots_free{0},
        builds_running{0};
    std::atomic<std::int64_t> oldest_waiting_ms{0};
  } now;

private:
  void put(farm_event&& e, std::int64_t at_ms);
  std::int64_t wall_ms() const;
  /// The last number that `q` knows, of this numbering.
  std::uint64_t known(const follow_events& q) const;

  const rt::clock& clock_;
  const node_id node_;
  const std::uint64_t stream_;
  const std::size_t kept_max_;
  mutable std::mutex mutex_;
  std::deque<farm_event> kept_;
  std::uint64_t last_ = 0;
  std::function<void()> wake_;
};

/// How an actor tells what happened; does nothing on a node that keeps no events.
class event_port {
public:
  event_port() = default;
  explicit event_port(std::shared_ptr<event_log> log) : log_(std::move(log)) {}
  void add(farm_event e) const {
    if (log_) log_->add(std::move(e));
  }
  void add(std::vector<farm_event> es) const {
    if (log_ && !es.empty()) log_->add(std::move(es));
  }
  /// Calls `f(gauges&)`.
  template <class F>
  void gauge(F f) const {
    if (log_) f(log_->now);
  }
  explicit operator bool() const { return log_ != nullptr; }
  event_log* operator->() const { return log_.get(); }

private:
  std::shared_ptr<event_log> log_;
};

/// An event of that kind about this derivation's inhash, to be completed.
farm_event event_of(event_kind kind, const nix::store_path& drv, const inhash& key, fence token);

/// Repeating what is wanted set right that so many of these had been lost (reliability.md 5.1); nothing if none.
void tell_reconciled(const event_port& port, const std::string& what, std::uint64_t count);

} // namespace coppice::actors
