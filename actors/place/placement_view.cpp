#include "actors/capacity.hpp"
#include "actors/place/placement.hpp"

#include <algorithm>

/// What PLACEMENT tells people.
namespace coppice::actors {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

constexpr std::size_t why_bytes_max = 300;

} // namespace

std::string placement::why_not(const machine& m, const demand& d) {
  if (auto what = lacks(m, d); !what.empty()) return what;
  const auto& share = m.what.share;
  if (!d.io_bound && m.kept_for && m.kept_for != d.key)
    return "is kept for a larger build, which others have overtaken for too long (" + m.kept_for->to_string() + ")";
  const auto room = too_little(share.left, share.all, takes(m, d));
  const bool slot = free_of(m, d.io_bound) > 0;
  if (slot && room.empty()) return {};
  if (!m.what.short_of.empty()) return m.what.short_of;
  if (!room.empty() && (d.io_bound ? m.what.io_busy < m.what.io_slots : m.what.busy < m.what.slots)) return room;
  return "has no free slot (" + std::to_string(d.io_bound ? m.what.io_slots : m.what.slots) +
         (d.io_bound ? " for what waits for network or disk)" : ")");
}

std::string placement::why_none(const demand& d) const {
  if (machines_.empty()) return "no machine offers itself";
  std::string why;
  for (auto& [id, m] : machines_) {
    auto one = why_not(m, d);
    if (one.empty()) return {};
    if (why.size() >= why_bytes_max) return why + "; …";
    why += (why.empty() ? "" : "; ") + id.value + " " + one;
  }
  return why;
}

queued_job placement::describe(const entry& e, std::uint64_t position, time_point now) const {
  queued_job q;
  q.position = position;
  q.drv = e.job.drv;
  q.key = e.job.key;
  q.request = e.job.request;
  q.priority = e.job.priority;
  q.critical_path = e.job.critical_path;
  q.io_bound = e.job.io_bound;
  q.waiting_ms = duration_cast<milliseconds>(now - e.since).count();
  q.why = why_none(demand_of(e.job));
  q.age = e.age;
  return q;
}

job_queue placement::page(const get_queue& q, time_point now) const {
  job_queue answer;
  answer.total = waiting();
  answer.assigned = assigned();
  std::optional<rank> after;
  if (q.after) after = rank_of(*q.after);
  std::array<std::uint64_t, 2> position{};
  std::uint64_t index = 0;
  auto a = queues_[0].begin(), b = queues_[1].begin();
  while ((a != queues_[0].end() || b != queues_[1].end()) && answer.rows.size() < q.limit) {
    const bool io_bound = a == queues_[0].end() || (b != queues_[1].end() && *b < *a);
    auto& next = io_bound ? b : a;
    ++position[io_bound];
    if ((!after || *after < *next) && index++ >= q.offset) answer.rows.push_back(describe(jobs_.at(std::get<3>(*next)), position[io_bound], now));
    ++next;
  }
  return answer;
}

node_statuses placement::machines(time_point now) const {
  node_statuses all;
  for (auto* some : {&machines_, &offline_})
    for (auto& [id, m] : *some) {
      all.rows.push_back({m.what, duration_cast<milliseconds>(now - m.heard).count(), some == &machines_,
                          duration_cast<milliseconds>(now - m.since).count()});
      all.rows.back().what.slots_free = free_of(m, false);
      all.rows.back().what.io_slots_free = free_of(m, true);
    }
  return all;
}

placing placement::explain(const placing_query& q, time_point now) const {
  placing p;
  for (auto& [id, m] : machines_)
    p.machines.push_back({id, why_not(m, {q.system, q.features, q.io_bound, q.key})});
  for (auto& [id, m] : offline_)
    p.machines.push_back({id, "is offline"});
  p.total = queues_[q.io_bound].size();
  auto found = jobs_.find(q.key);
  if (found == jobs_.end() || found->second.assigned) return p;
  auto& queue = queue_of(found->second);
  const auto me = queue.find(rank_of(found->second));
  std::uint64_t position = 0;
  for (auto other = queue.begin(); other != me; ++other) {
    ++position;
    if (p.ahead.size() < explained_rows_max) p.ahead.push_back(describe(jobs_.at(std::get<3>(*other)), position, now));
  }
  p.job = describe(found->second, position + 1, now);
  return p;
}

} // namespace coppice::actors
