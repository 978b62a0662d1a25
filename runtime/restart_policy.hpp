#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <variant>

/// When a dead child is started again: pure, no clock, no randomness of its own.
namespace coppice::rt {

/// Which ends of a child are followed by a restart.
enum class restart_kind : std::uint8_t {
  permanent, ///< every end
  transient, ///< an abnormal end
  temporary  ///< none; and none counts against its supervisor
};

struct restart_options {
  std::size_t max_restarts = 5;             ///< more than this many deaths …
  std::chrono::milliseconds within{60'000}; ///< … inside this sliding window: give up
  std::chrono::milliseconds backoff_first{100};
  std::chrono::milliseconds backoff_max{30'000}; ///< bound of the doubling, before jitter
  std::chrono::milliseconds calm{60'000};        ///< alive this long: the next backoff is the first again
  unsigned jitter_percent = 20;                  ///< each delay is spread evenly over ± this much
};

/// Decides for the children of one supervisor. Times are any monotonic clock's, as durations since its epoch.
class restart_policy {
public:
  using time = std::chrono::nanoseconds;
  using child_id = std::uint64_t;

  struct started {
    child_id child;
  };
  struct ended {
    child_id child;
    restart_kind kind;
    bool abnormal;
    std::size_t own_restarts_max = 0; ///< if not 0, its deaths are counted for it alone, and against this
  };
  struct removed {
    child_id child;
  };
  using event = std::variant<started, ended, removed>;

  struct nothing {
    friend bool operator==(nothing, nothing) = default;
  };
  struct restart_after {
    std::chrono::nanoseconds delay;
    friend bool operator==(restart_after, restart_after) = default;
  };
  struct leave_ended {
    friend bool operator==(leave_ended, leave_ended) = default;
  };
  /// It died more often than it may of its own: it stays ended.
  struct spent {
    friend bool operator==(spent, spent) = default;
  };
  struct give_up {
    friend bool operator==(give_up, give_up) = default;
  };
  using decision = std::variant<nothing, restart_after, leave_ended, spent, give_up>;

  /// `seed` spreads the delays of supervisors that fail together.
  restart_policy(restart_options options, std::uint64_t seed) : options_(options), random_(seed) {}

  /// What follows from `e`. `now` never goes backwards. Only `ended` gives anything but `nothing`.
  decision step(const event& e, time now);
  /// Deaths inside the window, but for those of children that are counted for themselves.
  std::size_t recent_deaths(time now);

private:
  struct history {
    time started{0};
    unsigned deaths_in_a_row = 0;
    std::deque<time> own_deaths; ///< the same as deaths_
  };
  decision on_end(const ended& e, time now);
  void forget_old(std::deque<time>& deaths, time now) const;
  std::chrono::nanoseconds backoff(unsigned deaths_before);

  restart_options options_;
  std::mt19937_64 random_;
  std::map<child_id, history> children_;
  std::deque<time> deaths_; ///< inside the window; at most max_restarts + 1
};

} // namespace coppice::rt
