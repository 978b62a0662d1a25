#include "actors/place/placement.hpp"

#include "actors/capacity.hpp"

#include <algorithm>
#include <queue>
#include <utility>

namespace coppice::actors {

placement::rank placement::rank_of(const entry& e) {
  return {-static_cast<std::int64_t>(e.job.priority), -static_cast<std::int64_t>(e.job.critical_path), e.age,
          e.job.key};
}

placement::rank placement::rank_of(const queue_place& p) {
  return {-static_cast<std::int64_t>(p.priority), -static_cast<std::int64_t>(p.critical_path), p.age, p.key};
}

void placement::enqueue(entry& e) {
  if (e.assigned) under_way(e).erase(e.job.key);
  e.assigned = false;
  enter_queue(e);
}

void placement::enter_queue(const entry& e) {
  queue_of(e).insert(rank_of(e));
  kinds_[e.job.io_bound][{e.job.system, e.job.features}].insert(rank_of(e));
}

void placement::leave_queue(const entry& e) {
  queue_of(e).erase(rank_of(e));
  auto& kinds = kinds_[e.job.io_bound];
  const auto own = kinds.find({e.job.system, e.job.features});
  if (own == kinds.end()) return;
  own->second.erase(rank_of(e));
  if (own->second.empty()) kinds.erase(own);
}

bool placement::add(const coppice::job& j, time_point now, effects& out) {
  auto found = jobs_.find(j.key);
  if (found != jobs_.end()) {
    auto& e = found->second;
    if (j.token < e.job.token) return true; // late
    bool same = j.token == e.job.token;
    if (same && e.assigned) return true;
    if (same && j.priority <= e.job.priority) { // nothing new, but who asks again has not heard, or has forgotten
      mark_told(e, false);
      tell_unplaceable(e, out);
      return true;
    }
    if (!e.assigned) leave_queue(e);
    if (!same) e.lost = j.again;
    auto priority = same ? std::max(j.priority, e.job.priority) : j.priority;
    e.job = j;
    e.job.priority = priority;
    mark_told(e, false);
    enqueue(e);
  } else {
    if (is_taken(j, now, out)) return true;
    if (jobs_.size() >= options_.jobs_max) return false;
    found = jobs_.try_emplace(j.key).first;
    found->second.job = j;
    found->second.lost = j.again;
    found->second.age = ++arrivals_;
    found->second.since = now;
    enqueue(found->second);
  }
  tell_unplaceable(found->second, out);
  place(now, out);
  return true;
}

std::optional<placement::time_point> placement::oldest_waiting() const {
  std::optional<time_point> oldest;
  for (auto& [key, e] : jobs_)
    if (!e.assigned && (!oldest || e.since < *oldest)) oldest = e.since;
  return oldest;
}

// Its inputs may be being fetched, which takes as long as it takes; or its worker was lost before it could begin.
bool placement::is_taken(const coppice::job& j, time_point now, effects& out) {
  auto found = taken_.find(j.key);
  if (found == taken_.end()) return false;
  auto& t = found->second;
  if (j.token < t.token) return true; // late
  if (j.token > t.token || !machines_.contains(t.node)) {
    taken_.erase(found);
    return false;
  }
  t.heard = now;
  out.emplace_back(recheck{t.node, j});
  return true;
}

void placement::on_lost(const coppice::job& j, time_point now, effects& out) {
  auto found = taken_.find(j.key);
  if (found == taken_.end() || found->second.token != j.token) return;
  taken_.erase(found);
  auto again = j;
  again.again = true;
  add(again, now, out); // beyond jobs_max its GRAPH repeats it
}

void placement::lend(const inhash& key, std::int32_t priority) {
  auto found = jobs_.find(key);
  if (found == jobs_.end() || found->second.job.priority >= priority) return;
  auto& e = found->second;
  if (!e.assigned) leave_queue(e);
  e.job.priority = priority;
  if (!e.assigned) enter_queue(e);
}

void placement::remove(const inhash& key, fence token) {
  if (auto t = taken_.find(key); t != taken_.end() && t->second.token <= token) taken_.erase(t);
  auto found = jobs_.find(key);
  if (found == jobs_.end() || found->second.job.token > token) return;
  if (found->second.assigned)
    under_way(found->second).erase(key);
  else
    leave_queue(found->second);
  mark_told(found->second, false);
  jobs_.erase(found);
}

void placement::on_offer(const offer& o, time_point now, effects& out) {
  const auto [known, fresh] = machines_.try_emplace(o.node, machine{{}, now, now, {}, {}});
  auto& m = known->second;
  if (fresh) {
    offline_.erase(o.node);
    ++comings_;
  }
  bool news = m.what.systems != o.systems || m.what.features != o.features ||
              m.what.mandatory_features != o.mandatory_features || m.what.share.all != o.share.all ||
              m.what.share.special != o.share.special;
  m = {o, now, m.since, m.prepares, {}, m.kept_for};
  for (bool io_bound : {false, true}) {
    auto& free = slots_of(m, io_bound);
    m.kept[io_bound] = std::min(free, static_cast<std::uint32_t>(under_way_[o.node][io_bound].size()));
    free -= m.kept[io_bound];
  }
  for (auto& keys : under_way_[o.node])
    for (auto& key : keys)
      reserve(m, jobs_.at(key));
  if (news) tell_unplaceable(out);
  place(now, out);
}

void placement::forget(std::map<node_id, machine>::iterator m, time_point now) {
  auto gone = machines_.extract(m);
  gone.mapped().since = now;
  offline_.insert_or_assign(gone.key(), std::move(gone.mapped()));
  ++comings_;
  bound_offline();
}

void placement::remember(const offer& o, time_point heard) {
  if (machines_.contains(o.node)) return;
  offline_.try_emplace(o.node, machine{o, heard, heard, {}, {}});
  bound_offline();
}

void placement::bound_offline() {
  if (offline_.size() <= options_.offline_max) return;
  offline_.erase(std::min_element(offline_.begin(), offline_.end(),
                                  [](auto& a, auto& b) { return a.second.heard < b.second.heard; }));
}

void placement::on_gone(const node_id& node, time_point now, effects& out) {
  if (auto m = machines_.find(node); m != machines_.end()) forget(m, now);
  for (auto& keys : under_way_[node])
    for (auto k = keys.begin(); k != keys.end();)
      enqueue(jobs_.at(*k++));
  place(now, out);
}

void placement::on_assigned(const inhash& key, fence token, bool fresh, time_point now) {
  auto found = jobs_.find(key);
  if (found != jobs_.end() && found->second.assigned && found->second.job.token == token) {
    if (found->second.lost && fresh) ++corrections_;
    const auto node = found->second.node;
    remove(key, token);
    taken_.insert_or_assign(key, taken{token, node, now});
  } else if (auto t = taken_.find(key); t != taken_.end() && t->second.token == token && fresh) {
    ++corrections_; // the answer to a recheck
  }
}

void placement::on_refused(const inhash& key, fence token, const node_id& node, bool full, time_point now,
                           effects& out) {
  auto m = machines_.find(node);
  if (m != machines_.end() && full)
    for (bool io_bound : {false, true})
      slots_of(m->second, io_bound) = m->second.kept[io_bound] = 0;
  auto found = jobs_.find(key);
  if (found != jobs_.end() && found->second.assigned && found->second.node == node &&
      found->second.job.token == token) {
    auto& e = found->second;
    if (m != machines_.end() && !full) {
      e.barred[node] = m->second.heard;
      give_back(m->second, e);
    }
    enqueue(e);
  }
  place(now, out);
}

void placement::tick(time_point now, effects& out) {
  const auto before = out.size();
  place(now, out); // finds nothing, for whatever may free a slot places at once
  corrections_ += out.size() - before;
  std::erase_if(taken_, [&](auto& t) { return now - t.second.heard > options_.taken_ttl; });
  for (auto m = machines_.begin(); m != machines_.end();)
    if (auto old = m++; now - old->second.heard > options_.offer_ttl) forget(old, now);
  comings_ += std::erase_if(offline_, [&](auto& m) { return now - m.second.heard > options_.offline_ttl; });
  for (auto& [id, kinds] : under_way_)
    for (auto& keys : kinds)
      for (auto k = keys.begin(); k != keys.end();) {
        auto& e = jobs_.at(*k++);
        if (now - e.assigned_at <= options_.assign_ttl) continue;
        auto m = machines_.find(id);
        if (m != machines_.end() && m->second.heard > e.assigned_at) give_back(m->second, e);
        enqueue(e);
        ++corrections_;
      }
  place(now, out);
  prepare_next(out);
}

void placement::prepare_next(effects& out) {
  prepare_next(false, out);
  prepare_next(true, out);
}

// One job for a machine at a time, until that is placed, wherever: what is fetched for it is soon wanted.
void placement::prepare_next(bool io_bound, effects& out) {
  std::vector<machine*> idle; // of those that are full, which have nothing to prepare for
  std::set<inhash> prepared;
  for (auto& [id, m] : machines_) {
    const bool kept = !io_bound && m.kept_for;
    if (m.prepares && (!kept || m.kept_for == m.prepares)) {
      const auto job = jobs_.find(*m.prepares);
      if (job != jobs_.end() && !job->second.assigned) {
        prepared.insert(*m.prepares);
        continue;
      }
    }
    if ((kept || free_of(m, io_bound) == 0) && m.what.short_of.empty() &&
        (io_bound ? m.what.io_slots : m.what.slots) > 0)
      idle.push_back(&m);
  }
  std::size_t seen = 0;
  for (auto& r : queues_[io_bound]) {
    if (idle.empty() || ++seen > options_.prepared_max) return;
    auto& e = jobs_.at(std::get<3>(r));
    if (e.job.inputs->empty() || prepared.contains(e.job.key)) continue;
    auto best = idle.end();
    for (auto m = idle.begin(); m != idle.end(); ++m)
      if (!spoken_for(**m, e.job) && lacks(**m, demand_of(e.job)).empty() &&
          (best == idle.end() || holdings_.missing_steps((*m)->what.node, e.job.heavy) <
                                     holdings_.missing_steps((*best)->what.node, e.job.heavy)))
        best = m;
    if (best == idle.end()) continue;
    (*best)->prepares = e.job.key;
    holdings_.on_given((*best)->what.node, e.job.heavy);
    out.emplace_back(prepare{(*best)->what.node, e.job});
    idle.erase(best);
  }
}

bool placement::spoken_for(const machine& m, const coppice::job& j) {
  return !j.io_bound && m.kept_for && m.kept_for != j.key;
}

void placement::give_back(machine& m, const entry& e) {
  m.what.share.left = m.what.share.left + e.took;
  auto& kept = m.kept[e.job.io_bound];
  if (m.heard > e.assigned_at) {
    if (kept == 0) return;
    --kept;
  }
  ++slots_of(m, e.job.io_bound);
}

std::uint32_t& placement::slots_of(machine& m, bool io_bound) {
  return io_bound ? m.what.io_slots_free : m.what.slots_free;
}

// If ordinary jobs did not fit into free slots, each look at the queue would go through all of it and find none.
std::uint32_t placement::free_of(const machine& m, bool io_bound) {
  return std::min(io_bound ? m.what.io_slots_free : m.what.slots_free,
                  times(m.what.share.left, reserved_by(m.what.share, {}, io_bound)));
}

std::size_t placement::slots_free(bool io_bound) const {
  std::size_t n = 0;
  for (auto& [id, m] : machines_)
    n += free_of(m, io_bound);
  return n;
}

std::string placement::shortage() const {
  std::string why;
  if (waiting() == 0) return why;
  for (auto& [id, m] : machines_)
    if (!m.what.short_of.empty()) why += (why.empty() ? "" : "; ") + id.value + " " + m.what.short_of;
  return why;
}

std::string placement::lacks(const machine& m, const demand& d) {
  auto has = [](const std::vector<std::string>& all, const std::string& x) {
    return std::find(all.begin(), all.end(), x) != all.end();
  };
  if (!has(m.what.systems, d.system)) return "has no system '" + d.system + "'";
  for (auto& f : d.features)
    if (!has(m.what.features, f)) return "has no feature '" + f + "'";
  for (auto& f : m.what.mandatory_features)
    if (!has(d.features, f)) return "takes only what requires feature '" + f + "'";
  const auto& all = m.what.share.all;
  return too_little(all, all, takes(m, d));
}

capacity placement::takes(const machine& m, const demand& d) {
  return reserved_by(m.what.share, d.features, d.io_bound);
}

void placement::reserve(machine& m, entry& e) {
  auto& share = m.what.share;
  e.took = least(takes(m, demand_of(e.job)), share.left);
  share.left = share.left - e.took;
}

placement::verdict placement::judge(const demand& d) const {
  verdict v;
  for (auto& [id, m] : machines_) {
    auto what = lacks(m, d);
    if (what.empty()) return {};
    v.why += (v.why.empty() ? "" : "; ") + id.value + " " + what;
  }
  const auto away =
      std::find_if(offline_.begin(), offline_.end(), [&](auto& m) { return lacks(m.second, d).empty(); });
  v.offline = away != offline_.end();
  if (v.offline) v.why += "; " + away->first.value + " could, and is offline";
  return v;
}

void placement::mark_told(entry& e, bool told) {
  told_ -= e.told_unplaceable ? 1 : 0;
  told_ += told ? 1 : 0;
  e.told_unplaceable = told;
}

void placement::tell(entry& e, const verdict& v, effects& out) {
  if (e.told_unplaceable != v.why.empty()) return;
  mark_told(e, !v.why.empty());
  out.emplace_back(unplaceable{e.job.key, v.why.empty() ? "" : "no machine can build it: " + v.why, v.offline});
}

void placement::tell_unplaceable(entry& e, effects& out) {
  if (!machines_.empty()) tell(e, judge(demand_of(e.job)), out);
}

void placement::tell_unplaceable(effects& out) {
  for (auto& kinds : kinds_)
    for (auto& [which, queue] : kinds) {
      const auto v = judge(demand_of(jobs_.at(std::get<3>(*queue.begin())).job));
      if (v.why.empty() && told_ == 0) continue;
      for (auto& r : queue)
        tell(jobs_.at(std::get<3>(r)), v, out);
    }
}

void placement::place(time_point now, effects& out) {
  place(false, now, out);
  place(true, now, out);
}

placement::search placement::best_for(const entry& e) {
  search found;
  std::pair<std::uint64_t, std::int64_t> best_cost; // steps to move; then most free slots: builds spread
  const auto d = demand_of(e.job);
  for (auto& [id, m] : machines_) {
    const auto slots = free_of(m, d.io_bound);
    if (spoken_for(m, e.job)) continue;
    found.any_free = found.any_free || slots > 0;
    if (!lacks(m, d).empty()) continue;
    const bool roomy = times(m.what.share.left, takes(m, d)) > 0;
    if (const auto barred = e.barred.find(id); barred != e.barred.end() && barred->second == m.heard) {
      found.barred = true;
      continue;
    }
    found.cramped = found.cramped || !roomy;
    if (slots == 0 || !roomy) continue;
    const std::pair cost{holdings_.missing_steps(id, e.job.heavy), -static_cast<std::int64_t>(slots)};
    if (found.best && cost >= best_cost) continue;
    found.best = &m;
    best_cost = cost;
  }
  return found;
}

// The machine stays the same while it can take the job, or none would ever become empty enough. None is chosen while
// nothing is free anywhere: the first that has something free is nearer to having room.
void placement::keep_one_for(entry& e, time_point now) {
  if (!e.overtaken || now - *e.overtaken < options_.overtaken_max) return;
  machine* most = nullptr; // of it most is left; then least has to be moved to it
  std::tuple<bool, std::uint32_t, std::int64_t> most_worth;
  for (auto& [id, m] : machines_) {
    if (!lacks(m, demand_of(e.job)).empty()) continue;
    const std::tuple worth{e.keeps == id, m.what.share.left.cores,
                           -static_cast<std::int64_t>(holdings_.missing_steps(id, e.job.heavy))};
    if (most && worth <= most_worth) continue;
    most = &m;
    most_worth = worth;
  }
  if (!most || (!e.keeps && most->what.share.left.cores == 0)) return;
  e.keeps = most->what.node;
  most->kept_for = e.job.key;
}

// A machine may have a free slot for none of ten thousand jobs that wait: of each kind it is asked once, for jobs of one
// kind differ only in who has refused them.
void placement::place(bool io_bound, time_point now, effects& out) {
  entry* cramped = nullptr; // the most urgent that fits nowhere just now, and would, were there fewer builds
  if (!io_bound)
    for (auto& [id, m] : machines_)
      m.kept_for.reset();
  struct line {
    std::set<rank>::const_iterator next, end;
    bool operator<(const line& other) const { return *other.next < *next; }
  };
  std::vector<line> all;
  for (auto& [which, queue] : kinds_[io_bound])
    all.push_back({queue.begin(), queue.end()});
  for (std::priority_queue<line> lines{{}, std::move(all)}; !lines.empty();) {
    auto first = lines.top();
    lines.pop();
    auto& e = jobs_.at(std::get<3>(*first.next));
    const auto found = best_for(e);
    if (!found.best && found.cramped && !cramped && !io_bound) {
      cramped = &e;
      keep_one_for(e, now);
    }
    if (!found.any_free) return;
    if (++first.next != first.end && (found.best || found.barred)) lines.push(first);
    if (!found.best) continue;
    if (cramped && !cramped->overtaken && lacks(*found.best, demand_of(cramped->job)).empty())
      cramped->overtaken = now;
    --slots_of(*found.best, io_bound);
    reserve(*found.best, e);
    leave_queue(e);
    e.assigned = true;
    e.assigned_at = now;
    e.node = found.best->what.node;
    holdings_.on_given(e.node, e.job.heavy);
    e.overtaken.reset();
    e.keeps.reset();
    under_way(e).insert(e.job.key);
    out.emplace_back(assign{e.node, e.job});
  }
}

} // namespace coppice::actors
