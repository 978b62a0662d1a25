#include "actors/plan/progress_feed.hpp"

namespace coppice::actors {
namespace {

std::int64_t ms_between(progress_feed::time_point from, progress_feed::time_point to) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(to - from).count();
}

} // namespace

const step_event& progress_feed::tell(step_event e, time_point now) {
  if (e.state == step_state::building || e.state == step_state::partial) {
    const auto phase = e.state == step_state::partial ? "waiting for the store" : "";
    running_[e.key] = {e.drv, e.key, e.token, e.node, 0, phase, ""};
    started_.emplace(e.key, now);
  } else if (auto began = started_.find(e.key); began != started_.end()) {
    e.duration_ms = ms_between(began->second, now);
    running_.erase(e.key);
    started_.erase(began);
  }
  e.seq = ++last_;
  events_.push_back(std::move(e));
  if (events_.size() > events_kept_max) events_.pop_front();
  return events_.back();
}

void progress_feed::on_progress(const step_progress& p) {
  auto found = running_.find(p.key);
  if (found == running_.end()) return;
  found->second.phase = p.phase;
  found->second.last_line = p.last_line;
}

std::optional<running_step> progress_feed::running(const inhash& key, time_point now) const {
  auto found = running_.find(key);
  if (found == running_.end()) return {};
  auto step = found->second;
  if (auto began = started_.find(key); began != started_.end()) step.elapsed_ms = ms_between(began->second, now);
  return step;
}

request_progress progress_feed::since(std::uint64_t after, time_point now) const {
  request_progress a;
  a.stream = stream_;
  if (after > last_) after = 0;              // numbers of another stream
  const auto first = last_ - events_.size(); // seq before the oldest kept
  a.lost = after < first;
  for (auto i = after > first ? after - first : 0; i < events_.size() && a.events.size() < events_per_poll_max; ++i)
    a.events.push_back(events_[static_cast<std::size_t>(i)]);
  a.next = a.events.empty() ? last_ : a.events.back().seq;
  for (auto& [key, step] : running_)
    a.running.push_back(*running(key, now));
  return a;
}

} // namespace coppice::actors
