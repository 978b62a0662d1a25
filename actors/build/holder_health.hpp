#pragma once

#include "messages/ids.hpp"
#include "runtime/clock.hpp"

#include <chrono>
#include <map>

namespace coppice::actors {

/// Which machines of the farm may be asked for what they hold. Decides; is told the time.
class holder_health {
public:
  using time_point = rt::boot_clock::time_point;
  struct options {
    std::chrono::milliseconds failed_first{
        10'000}; ///< it could not be reached, or broke off; doubled each time in a row
    std::chrono::milliseconds failed_max{300'000};
    std::chrono::milliseconds wrong{3'600'000}; ///< it sent other bytes than it should have: nobody's patience helps
    std::size_t machines_max = 10'000;          ///< remembered; beyond, the bar that ends first is forgotten
  };
  holder_health() : holder_health(options{}) {}
  explicit holder_health(options o) : options_(o) {}

  bool may_ask(const node_id& node, time_point now) const;
  void on_served(const node_id& node);
  void on_failed(const node_id& node, time_point now);
  void on_wrong(const node_id& node, time_point now);
  /// Of those that did not do what they should.
  std::size_t remembered() const { return bars_.size(); }

private:
  struct bar {
    time_point until;
    unsigned failures = 0; ///< in a row
    bool wrong = false;
  };
  bar& bar_of(const node_id& node);

  options options_;
  std::map<node_id, bar> bars_;
};

} // namespace coppice::actors
