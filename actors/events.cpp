#include "actors/events.hpp"

#include "runtime/log.hpp"

#include <algorithm>

namespace coppice::actors {

event_log::event_log(const rt::clock& clock, node_id node, std::uint64_t stream, std::size_t kept_max)
    : clock_(clock), node_(std::move(node)), stream_(stream), kept_max_(std::max<std::size_t>(kept_max, 1)) {}

std::int64_t event_log::wall_ms() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(clock_.wall_now().time_since_epoch()).count();
}

void event_log::add(farm_event e) {
  std::function<void()> wake;
  {
    std::lock_guard lock{mutex_};
    put(std::move(e), wall_ms());
    wake.swap(wake_);
  }
  if (wake) wake();
}

void event_log::add(std::vector<farm_event> es) {
  std::function<void()> wake;
  {
    std::lock_guard lock{mutex_};
    auto at = wall_ms();
    for (auto& e : es)
      put(std::move(e), at);
    if (!es.empty()) wake.swap(wake_);
  }
  if (wake) wake();
}

void event_log::put(farm_event&& e, std::int64_t at_ms) {
  e.seq = ++last_;
  e.at_ms = at_ms;
  if (e.text.size() > event_text_bytes_max) e.text.resize(event_text_bytes_max);
  if (kept_.size() >= kept_max_) kept_.pop_front();
  kept_.push_back(std::move(e));
}

std::uint64_t event_log::known(const follow_events& q) const {
  bool ours = q.stream == 0 || q.stream == stream_;
  return ours ? std::min(q.after, last_) : 0;
}

bool event_log::has_news(const follow_events& q) const {
  std::lock_guard lock{mutex_};
  return known(q) < last_;
}

event_page event_log::read(const follow_events& q) const {
  event_page page;
  page.node = node_;
  page.stream = stream_;
  auto& g = page.gauges;
  g.requests_open = now.requests_open;
  g.steps_waiting = now.steps_waiting;
  g.io_steps_waiting = now.io_steps_waiting;
  g.oldest_waiting_ms = now.oldest_waiting_ms;
  g.slots_free = now.slots_free;
  g.io_slots_free = now.io_slots_free;
  g.builds_running = now.builds_running;
  std::lock_guard lock{mutex_};
  auto after = known(q);
  auto gone = last_ - kept_.size(); // the last number that is no longer kept
  page.lost = gone > after ? gone - after : 0;
  auto from = static_cast<std::ptrdiff_t>(std::max(after, gone) - gone);
  auto n = std::min<std::ptrdiff_t>(q.limit, std::ssize(kept_) - from);
  page.events.assign(kept_.begin() + from, kept_.begin() + from + n);
  page.next = gone + static_cast<std::uint64_t>(from + n);
  return page;
}

void event_log::wake_once(std::function<void()> wake) {
  std::lock_guard lock{mutex_};
  wake_ = std::move(wake);
}

farm_event event_of(event_kind kind, const nix::store_path& drv, const inhash& key, fence token) {
  farm_event e;
  e.kind = kind;
  e.drv = drv;
  e.key = key;
  e.token = token;
  return e;
}

void tell_reconciled(const event_port& port, const std::string& what, std::uint64_t count) {
  if (count == 0) return;
  rt::log::warn("RECONCILE", "lost, and found by repeating what={} count={}", what, count);
  farm_event e;
  e.kind = event_kind::reconciled;
  e.text = what;
  e.count = count;
  port.add(std::move(e));
}

} // namespace coppice::actors
