#include "runtime/child_group.hpp"

#include <algorithm>
#include <utility>

namespace coppice::rt {

child_group::child_group(strategy how, restart_options restarts, std::uint64_t seed)
    : how_(how), policy_(restarts, seed) {}

// -- news ---------------------------------------------------------------------

child_group::child_id child_group::add(restart_kind kind, bool runs, time now, std::size_t own_restarts_max) {
  const auto id = ++last_id_;
  auto& c = children_.emplace(id, child{kind, own_restarts_max, phase::due, now}).first->second;
  unsettled_.insert(id);
  if (!runs) return id;
  c.at = phase::up;
  c.doomed = c.again = cleaning_ = true;
  return id;
}

bool child_group::dismiss(child_id id) {
  auto& c = children_.at(id);
  c.again = false;
  if (c.at == phase::due) c.at = phase::ended;
  if (c.at == phase::starting || c.at == phase::up) doom(id, c, false);
  return c.at == phase::ended;
}

void child_group::remove(child_id id, time now) {
  policy_.step(restart_policy::removed{id}, now);
  children_.erase(id);
  unsettled_.erase(id);
}

bool child_group::up(child_id id) {
  auto found = children_.find(id);
  if (found == children_.end() || found->second.at != phase::starting) return false;
  found->second.at = phase::up;
  return true;
}

child_group::verdict child_group::ended(child_id id, bool abnormal, time now) {
  auto& c = children_.at(id);
  unsettled_.insert(id);
  if (c.at == phase::stopping || c.doomed) {
    c.doomed = false;
    c.at = c.again ? phase::due : phase::ended;
    return {c.again ? fate::rejoins : fate::stopped, c.due};
  }
  c.at = phase::ended;
  const auto decision = policy_.step(restart_policy::ended{id, c.kind, abnormal, c.own_restarts_max}, now);
  if (auto restart = std::get_if<restart_policy::restart_after>(&decision)) {
    c.at = phase::due;
    c.due = now + restart->delay;
    doom_followers(id);
    return {fate::restarts, c.due};
  }
  if (std::holds_alternative<restart_policy::spent>(decision)) return {fate::spent};
  if (!std::holds_alternative<restart_policy::give_up>(decision)) return {fate::stays_ended};
  finish();
  return {fate::gives_up};
}

child_group::patience child_group::late(child_id id) {
  auto found = children_.find(id);
  if (found == children_.end()) return patience::left;
  auto& c = found->second;
  if (c.at == phase::starting) return patience::no_start;
  if (c.at != phase::stopping) return patience::left;
  return std::exchange(c.killed, true) ? patience::no_stop : patience::kill;
}

void child_group::finish() {
  if (std::exchange(finishing_, true)) return;
  for (auto& [id, c] : children_) {
    c.again = false;
    if (c.at == phase::due) c.at = phase::ended;
    if (c.at == phase::starting || c.at == phase::up) doom(id, c, false);
  }
}

void child_group::doom(child_id id, child& c, bool again) {
  c.doomed = true;
  c.again = again;
  unsettled_.insert(id);
}

void child_group::doom_followers(child_id of) {
  if (!grouped()) return;
  const auto due = children_.at(of).due;
  for (auto& [id, c] : children_) {
    if (id == of || (how_ == strategy::rest_for_one && id < of)) continue;
    c.due = std::max(c.due, due);
    if (c.at == phase::starting || c.at == phase::up) doom(id, c, c.kind != restart_kind::temporary);
  }
}

// -- what is to be done -------------------------------------------------------

child_group::orders child_group::next(time now) {
  orders out;
  std::erase_if(unsettled_, [this](child_id id) { return settled(children_.at(id)); });
  stop_doomed(out);
  const bool nothing_stops = quiet();
  if (nothing_stops) cleaning_ = false;
  if (finishing_)
    out.over = nothing_stops;
  else if (nothing_stops || !(grouped() || cleaning_))
    start_due(out, now);
  return out;
}

bool child_group::quiet() const {
  return std::none_of(unsettled_.begin(), unsettled_.end(), [this](child_id id) {
    auto& c = children_.at(id);
    return c.doomed || c.at == phase::stopping;
  });
}

// Last started first and one at a time, but the many of a dynamic supervisor all at once.
void child_group::stop_doomed(orders& out) {
  if (!dynamic())
    for (auto id : unsettled_)
      if (children_.at(id).at == phase::stopping) return;
  for (auto i = unsettled_.rbegin(); i != unsettled_.rend(); ++i) {
    auto& c = children_.at(*i);
    if (!c.doomed) continue;
    c.doomed = c.killed = false;
    c.at = phase::stopping;
    out.stop.push_back({*i, c.again});
    if (!dynamic()) return;
  }
}

// In order, each when the one before it is ready. In a group also a backoff holds up those that follow: they are due
// no earlier than it (doom_followers).
void child_group::start_due(orders& out, time now) {
  for (auto id : unsettled_) {
    auto& c = children_.at(id);
    if (c.at == phase::due && c.due <= now) {
      c.at = phase::starting;
      policy_.step(restart_policy::started{id}, now);
      out.start.push_back(id);
    }
    if (c.at == phase::starting && !dynamic()) return;
    if (c.at == phase::due) out.wake = std::min(out.wake.value_or(c.due), c.due);
  }
}

} // namespace coppice::rt
