#include "actors/place/placement.hpp"

#include <algorithm>

namespace coppice::actors {

placement::rank placement::rank_of(const entry& e) {
  return {-static_cast<std::int64_t>(e.job.priority), -static_cast<std::int64_t>(e.job.critical_path), e.age, e.job.key};
}

bool placement::add(const coppice::job& j, time_point now, effects& out) {
  auto found = jobs_.find(j.key);
  if (found != jobs_.end()) {
    auto& e = found->second;
    if (j.token < e.job.token) return true; // late
    bool same = j.token == e.job.token;
    if (same && e.assigned) return true;
    if (!e.assigned) queue_.erase(rank_of(e));
    auto priority = same ? std::max(j.priority, e.job.priority) : j.priority;
    e.job = j;
    e.job.priority = priority;
    e.assigned = false;
    e.told_unplaceable = false; // who asks again has not heard, or has forgotten
    queue_.insert(rank_of(e));
  } else {
    if (jobs_.size() >= options_.jobs_max) return false;
    entry e;
    e.job = j;
    e.age = ++arrivals_;
    queue_.insert(rank_of(e));
    jobs_.emplace(j.key, std::move(e));
  }
  explain(jobs_.at(j.key), out);
  place(now, out);
  return true;
}

void placement::lend(const inhash& key, std::int32_t priority) {
  auto found = jobs_.find(key);
  if (found == jobs_.end() || found->second.job.priority >= priority) return;
  auto& e = found->second;
  if (!e.assigned) queue_.erase(rank_of(e));
  e.job.priority = priority;
  if (!e.assigned) queue_.insert(rank_of(e));
}

void placement::remove(const inhash& key, fence token) {
  auto found = jobs_.find(key);
  if (found == jobs_.end() || found->second.job.token > token) return;
  if (!found->second.assigned) queue_.erase(rank_of(found->second));
  jobs_.erase(found);
}

void placement::on_offer(const offer& o, time_point now, effects& out) {
  auto& m = machines_[o.node];
  bool news = m.what.systems != o.systems || m.what.features != o.features;
  m = {o, now};
  if (news)
    for (auto& r : queue_) explain(jobs_.at(std::get<3>(r)), out);
  place(now, out);
}

void placement::on_assigned(const inhash& key, fence token) {
  auto found = jobs_.find(key);
  if (found != jobs_.end() && found->second.assigned && found->second.job.token == token) jobs_.erase(found);
}

void placement::on_refused(const inhash& key, fence token, const node_id& node, time_point now, effects& out) {
  if (auto m = machines_.find(node); m != machines_.end()) m->second.what.slots_free = 0;
  auto found = jobs_.find(key);
  if (found != jobs_.end() && found->second.assigned && found->second.node == node && found->second.job.token == token) {
    found->second.assigned = false;
    queue_.insert(rank_of(found->second));
  }
  place(now, out);
}

void placement::tick(time_point now, effects& out) {
  std::erase_if(machines_, [&](auto& m) { return now - m.second.heard > options_.offer_ttl; });
  for (auto& [key, e] : jobs_)
    if (e.assigned && now - e.assigned_at > options_.assign_ttl) {
      e.assigned = false;
      queue_.insert(rank_of(e));
    }
  place(now, out);
}

std::size_t placement::slots_free() const {
  std::size_t n = 0;
  for (auto& [id, m] : machines_) n += m.what.slots_free;
  return n;
}

std::string placement::lacks(const machine& m, const coppice::job& j) {
  auto has = [](const std::vector<std::string>& all, const std::string& x) {
    return std::find(all.begin(), all.end(), x) != all.end();
  };
  if (!has(m.what.systems, j.system)) return "system '" + j.system + "'";
  for (auto& f : j.features)
    if (!has(m.what.features, f)) return "feature '" + f + "'";
  return {};
}

void placement::explain(entry& e, effects& out) {
  if (machines_.empty() || e.told_unplaceable) return;
  std::string why;
  for (auto& [id, m] : machines_) {
    auto what = lacks(m, e.job);
    if (what.empty()) return;
    why += (why.empty() ? "" : "; ") + id.value + " has no " + what;
  }
  e.told_unplaceable = true;
  out.emplace_back(unplaceable{e.job.key, "no machine can build it: " + why});
}

void placement::place(time_point now, effects& out) {
  for (auto next = queue_.begin(); next != queue_.end();) {
    // most free slots first: builds spread instead of filling one machine
    machine* best = nullptr;
    auto& e = jobs_.at(std::get<3>(*next));
    bool any_free = false;
    for (auto& [id, m] : machines_) {
      any_free = any_free || m.what.slots_free > 0;
      if (m.what.slots_free > 0 && lacks(m, e.job).empty() && (!best || m.what.slots_free > best->what.slots_free))
        best = &m;
    }
    if (!any_free) return;
    if (!best) {
      ++next;
      continue;
    }
    --best->what.slots_free;
    e.assigned = true;
    e.assigned_at = now;
    e.node = best->what.node;
    out.emplace_back(assign{e.node, e.job});
    next = queue_.erase(next);
  }
}

} // namespace coppice::actors
