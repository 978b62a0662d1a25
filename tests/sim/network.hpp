#pragma once

#include "tests/sim/dice.hpp"
#include "tests/sim/timeline.hpp"

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace coppice::sim {

/// What words between machines suffer.
struct weather {
  double loss = 0, repeat = 0;
  nanoseconds delay_min{std::chrono::microseconds{100}}, delay_max{std::chrono::milliseconds{2}};
  bool reorders = false; ///< else later words of one machine to another do not overtake
};

/// Carries words from machine to machine, or does not.
class network {
public:
  network(timeline& time, std::uint64_t seed) : time_(time), dice_(seed) {}

  weather now;
  /// What `from` says does not reach `to` any more; the other direction is another matter.
  void cut(const std::string& from, const std::string& to) { cuts_.insert({from, to}); }
  void heal(const std::string& from, const std::string& to) { cuts_.erase({from, to}); }
  void heal_all() { cuts_.clear(); }
  bool carries(const std::string& from, const std::string& to) const { return !cuts_.contains({from, to}); }

  /// Calls `deliver` when the words arrive: never, once, or several times.
  void send(const std::string& from, const std::string& to, std::function<void()> deliver) {
    if (!carries(from, to) || dice_.chance(now.loss)) {
      ++lost;
      return;
    }
    const int copies = dice_.chance(now.repeat) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      auto at = time_.now() + dice_.between(now.delay_min, now.delay_max);
      auto& last = last_[{from, to}];
      if (!now.reorders) at = std::max(at, last);
      last = std::max(last, at);
      time_.after(at - time_.now(), deliver);
    }
    repeated += static_cast<std::uint64_t>(copies - 1);
    ++carried;
  }

  std::uint64_t carried = 0, lost = 0, repeated = 0;

private:
  using pair = std::pair<std::string, std::string>;
  timeline& time_;
  dice dice_;
  std::set<pair> cuts_;
  std::map<pair, nanoseconds> last_;
};

} // namespace coppice::sim
