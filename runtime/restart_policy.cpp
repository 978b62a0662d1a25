#include "runtime/restart_policy.hpp"

#include <algorithm>

namespace coppice::rt {

restart_policy::decision restart_policy::step(const event& e, time now) {
  if (auto s = std::get_if<started>(&e)) {
    children_[s->child].started = now;
    return nothing{};
  }
  if (auto r = std::get_if<removed>(&e)) {
    children_.erase(r->child);
    return nothing{};
  }
  return on_end(std::get<ended>(e), now);
}

restart_policy::decision restart_policy::on_end(const ended& e, time now) {
  if (e.kind == restart_kind::temporary || (e.kind == restart_kind::transient && !e.abnormal)) {
    children_.erase(e.child);
    return leave_ended{};
  }
  auto& child = children_[e.child];
  const bool alone = e.own_restarts_max > 0;
  auto& deaths = alone ? child.own_deaths : deaths_;
  forget_old(deaths, now);
  deaths.push_back(now);
  if (!alone && deaths.size() > options_.max_restarts) return give_up{};
  if (alone && deaths.size() > e.own_restarts_max) {
    children_.erase(e.child);
    return spent{};
  }
  if (now - child.started >= options_.calm) child.deaths_in_a_row = 0;
  return restart_after{backoff(child.deaths_in_a_row++)};
}

std::size_t restart_policy::recent_deaths(time now) {
  forget_old(deaths_, now);
  return deaths_.size();
}

void restart_policy::forget_old(std::deque<time>& deaths, time now) const {
  while (!deaths.empty() && now - deaths.front() > options_.within)
    deaths.pop_front();
}

std::chrono::nanoseconds restart_policy::backoff(unsigned deaths_before) {
  auto delay = std::chrono::nanoseconds{options_.backoff_first};
  const auto most = std::chrono::nanoseconds{options_.backoff_max};
  for (unsigned i = 0; i < deaths_before && delay < most; ++i)
    delay *= 2;
  delay = std::min(delay, most);
  const auto spread = delay.count() / 100 * options_.jitter_percent;
  if (spread == 0) return delay;
  // by hand: std::uniform_int_distribution differs between standard libraries
  const auto offset = static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(2 * spread + 1)) - spread;
  return delay + std::chrono::nanoseconds{offset};
}

} // namespace coppice::rt
