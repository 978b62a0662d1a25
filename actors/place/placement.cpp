#include "actors/place/placement.hpp"

#include <algorithm>

namespace coppice::actors {

placement::rank placement::rank_of(const entry& e) {
  return {-static_cast<std::int64_t>(e.job.priority), -static_cast<std::int64_t>(e.job.critical_path), e.age, e.job.key};
}

void placement::enqueue(entry& e) {
  if (e.assigned) under_way_[e.node].erase(e.job.key);
  e.assigned = false;
  queue_.insert(rank_of(e));
}

bool placement::add(const coppice::job& j, time_point now, effects& out) {
  auto found = jobs_.find(j.key);
  if (found != jobs_.end()) {
    auto& e = found->second;
    if (j.token < e.job.token) return true; // late
    bool same = j.token == e.job.token;
    if (same && e.assigned) return true;
    if (same && j.priority <= e.job.priority) { // nothing new, but who asks again has not heard, or has forgotten
      e.told_unplaceable = false;
      explain(e, out);
      return true;
    }
    if (!e.assigned) queue_.erase(rank_of(e));
    auto priority = same ? std::max(j.priority, e.job.priority) : j.priority;
    e.job = j;
    e.job.priority = priority;
    e.told_unplaceable = false;
    enqueue(e);
  } else {
    if (jobs_.size() >= options_.jobs_max) return false;
    found = jobs_.try_emplace(j.key).first;
    found->second.job = j;
    found->second.age = ++arrivals_;
    enqueue(found->second);
  }
  explain(found->second, out);
  place(now, out);
  return true;
}

void placement::remove(const inhash& key, fence token) {
  auto found = jobs_.find(key);
  if (found == jobs_.end() || found->second.job.token > token) return;
  if (found->second.assigned)
    under_way_[found->second.node].erase(key);
  else
    queue_.erase(rank_of(found->second));
  jobs_.erase(found);
}

void placement::on_offer(const offer& o, time_point now, effects& out) {
  auto& m = machines_[o.node];
  bool news = m.what.systems != o.systems || m.what.features != o.features;
  m = {o, now, std::min(o.slots_free, static_cast<std::uint32_t>(under_way_[o.node].size()))};
  m.what.slots_free -= m.kept;
  if (news)
    for (auto& r : queue_) explain(jobs_.at(std::get<3>(r)), out);
  place(now, out);
}

void placement::on_assigned(const inhash& key, fence token) {
  auto found = jobs_.find(key);
  if (found != jobs_.end() && found->second.assigned && found->second.job.token == token) remove(key, token);
}

void placement::on_refused(const inhash& key, fence token, const node_id& node, time_point now, effects& out) {
  if (auto m = machines_.find(node); m != machines_.end()) m->second.what.slots_free = m->second.kept = 0;
  auto found = jobs_.find(key);
  if (found != jobs_.end() && found->second.assigned && found->second.node == node && found->second.job.token == token)
    enqueue(found->second);
  place(now, out);
}

void placement::tick(time_point now, effects& out) {
  std::erase_if(machines_, [&](auto& m) { return now - m.second.heard > options_.offer_ttl; });
  for (auto& [id, keys] : under_way_)
    for (auto k = keys.begin(); k != keys.end();) {
      auto& e = jobs_.at(*k++);
      if (now - e.assigned_at <= options_.assign_ttl) continue;
      if (auto m = machines_.find(id); m != machines_.end() && m->second.heard > e.assigned_at && m->second.kept > 0) {
        --m->second.kept;
        ++m->second.what.slots_free;
      }
      enqueue(e);
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
    under_way_[e.node].insert(e.job.key);
    out.emplace_back(assign{e.node, e.job});
    next = queue_.erase(next);
  }
}

} // namespace coppice::actors
