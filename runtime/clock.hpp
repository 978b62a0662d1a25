#pragma once

#include <atomic>
#include <chrono>

/// Time as a port, so that tests own it.
namespace coppice::rt {

/// CLOCK_BOOTTIME: monotonic, and goes on while the machine sleeps, as leases must.
struct boot_clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<boot_clock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};

/// Where deciding code's callers get `now` from; any thread may ask.
class clock {
public:
  virtual ~clock() = default;
  /// For every decision and every deadline.
  virtual boot_clock::time_point now() const = 0;
  /// For logs and records that people read, never for decisions: it jumps.
  virtual std::chrono::system_clock::time_point wall_now() const = 0;
};

/// The machine's clocks.
class real_clock final : public clock {
public:
  boot_clock::time_point now() const override { return boot_clock::now(); }
  std::chrono::system_clock::time_point wall_now() const override { return std::chrono::system_clock::now(); }
};

/// A clock that only moves when told; starts at one hour, because time 0 tends to mean "never".
class manual_clock final : public clock {
public:
  boot_clock::time_point now() const override { return boot_clock::time_point{std::chrono::nanoseconds{now_.load()}}; }
  /// Midnight of 2020-01-01 plus the time that passed.
  std::chrono::system_clock::time_point wall_now() const override;
  /// Moves forward by `d`, which is not negative.
  void advance(std::chrono::nanoseconds d) { now_ += d.count(); }

private:
  std::atomic<std::int64_t> now_{std::chrono::nanoseconds{std::chrono::hours{1}}.count()};
};

} // namespace coppice::rt
