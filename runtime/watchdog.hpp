#pragma once

#include <chrono>
#include <cstdint>

/// What the watchdog of a build decides, and the words between it and the process loop. Standard library only: it is
/// part of a static program, apps/jail.
namespace coppice::rt {

/// Until when may a build run? Times are CLOCK_BOOTTIME's (reliability.md 4.5).
class watchdog {
public:
  using milliseconds = std::chrono::milliseconds;
  /// A deadline that never comes.
  static constexpr milliseconds never = milliseconds::max();

  struct terms {
    milliseconds deadline = never; ///< the lease ends
    milliseconds kill_grace{0};    ///< so long before it the build must stand still, or be killed
    milliseconds freeze_max{0};    ///< so long it may stand still, then it is killed
    bool can_freeze = false;       ///< else it is killed when it would be frozen
  };
  enum class order : std::uint8_t { run, freeze, kill };

  explicit watchdog(terms t) : terms_(t) {}

  /// The lease was extended; a deadline never moves back.
  void extend(milliseconds deadline) {
    if (deadline > terms_.deadline) terms_.deadline = deadline;
  }
  /// Freezing turned out to be impossible.
  void cannot_freeze() { terms_.can_freeze = false; }
  /// What must be at `now`. Once it is `kill`, it stays so.
  order at(milliseconds now) {
    if (killed_) return order::kill;
    if (terms_.deadline == never || now < terms_.deadline - terms_.kill_grace) {
      frozen_at_ = never;
      return order::run;
    }
    if (frozen_at_ == never) frozen_at_ = now;
    // from when it really stood still: after the machine slept, there is time to ask
    killed_ = !terms_.can_freeze || now - frozen_at_ >= terms_.freeze_max;
    return killed_ ? order::kill : order::freeze;
  }
  /// When at() may say something else by itself.
  milliseconds wake() const {
    if (killed_ || terms_.deadline == never) return never;
    return frozen_at_ != never ? frozen_at_ + terms_.freeze_max : terms_.deadline - terms_.kill_grace;
  }
  /// Since when it stands still; never if it does not.
  milliseconds frozen_at() const { return frozen_at_; }

private:
  terms terms_;
  milliseconds frozen_at_ = never;
  bool killed_ = false;
};

/// One datagram between the two, in the machine's own byte order; no others are said. Bytes after it are text.
struct watchdog_word {
  enum class kind : std::uint32_t {
    extend,     ///< to the watchdog: `ms` is the new deadline
    frozen,     ///< from it: the build stands still
    thawed,     ///< it runs again, after `ms` of standing still
    lease_over, ///< it was killed, since the lease was not extended in time
    not_started ///< the program could not be started: the text says why
  };
  kind what = kind::extend;
  std::uint32_t unused = 0;
  std::int64_t ms = 0;
};
/// Bytes of a text; what is longer is cut.
inline constexpr std::size_t watchdog_text_bytes_max = 256;

} // namespace coppice::rt
