#include "actors/build/holder_health.hpp"

#include <algorithm>

namespace coppice::actors {

bool holder_health::may_ask(const node_id& node, time_point now) const {
  auto found = bars_.find(node);
  return found == bars_.end() || found->second.until <= now;
}

// One that sent wrong bytes is not trusted again before its time for what came right from another thread.
void holder_health::on_served(const node_id& node) {
  if (auto found = bars_.find(node); found != bars_.end() && !found->second.wrong) bars_.erase(found);
}

void holder_health::on_failed(const node_id& node, time_point now) {
  auto& b = bar_of(node);
  if (b.until > now) return; // several fetches from it failed at once: that is one failure
  b.wrong = false;
  auto pause = options_.failed_first;
  for (unsigned n = 0; n < b.failures && pause < options_.failed_max; ++n)
    pause *= 2;
  ++b.failures;
  b.until = now + std::min(pause, options_.failed_max);
}

void holder_health::on_wrong(const node_id& node, time_point now) {
  auto& b = bar_of(node);
  b.wrong = true;
  b.until = std::max(b.until, now + options_.wrong);
}

holder_health::bar& holder_health::bar_of(const node_id& node) {
  if (!bars_.contains(node) && bars_.size() >= options_.machines_max)
    bars_.erase(
        std::min_element(bars_.begin(), bars_.end(), [](auto& a, auto& b) { return a.second.until < b.second.until; }));
  return bars_[node];
}

} // namespace coppice::actors
