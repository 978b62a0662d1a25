#include "actors/plan/plan.hpp"

#include <fmt/chrono.h>

#include <algorithm>

namespace coppice::actors {

namespace {

std::string utc(std::int64_t wall_ms) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(wall_ms / 1000)));
}

} // namespace

using ledger::lock_state;
using ledger::phase;

plan::plan(std::vector<plan_node> nodes, std::vector<std::uint32_t> roots, options o)
  : nodes_(std::move(nodes)), roots_(std::move(roots)), options_(o), steps_(nodes_.size()), dependants_(nodes_.size()),
    heights_(nodes_.size(), 0) {
  std::vector<std::uint32_t> above(nodes_.size(), 0), order;
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    jobs_[nodes_[i].key].nodes.push_back(i);
    queued_.resize(std::max<std::size_t>(queued_.size(), nodes_[i].lane + 1));
    for (auto input : nodes_[i].inputs) dependants_[input].push_back(i);
  }
  for (auto root : roots_) steps_[root].is_root = true;
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    above[i] = static_cast<std::uint32_t>(dependants_[i].size());
    if (above[i] == 0) order.push_back(i);
  }
  for (std::size_t done = 0; done < order.size(); ++done)
    for (auto input : nodes_[order[done]].inputs) {
      heights_[input] = std::max(heights_[input], heights_[order[done]] + 1);
      if (--above[input] == 0) order.push_back(input);
    }
}

plan::effects plan::on_rows(const std::vector<lock_state>& rows) {
  effects out;
  std::vector<inhash> asks;
  for (auto& row : rows) {
    auto found = jobs_.find(row.key);
    if (over_ || found == jobs_.end()) continue;
    bool realised = row.phase == phase::realised && row.published;
    if (realised) found->second.outputs = row.outputs, found->second.builder = row.node;
    for (auto i : found->second.nodes) {
      switch (steps_[i].at) {
        case life::asked: on_existence(i, row, asks, out); break;
        case life::waiting:
        case life::delayed:
        case life::queued:
        case life::building: on_awaited(i, row, out); break;
        case life::wanted:
        case life::ready:
        case life::acquiring: // the answer to acquire decides, but what is there is there
          if (realised) finish_step(i, out);
          break;
        case life::unknown:
        case life::done:
        case life::failed:
        case life::not_attempted: break;
      }
    }
  }
  if (!asks.empty()) out.emplace_back(ask{std::move(asks)});
  check_discovered(out);
  check_over(out);
  return out;
}

plan::effects plan::on_held(const lock_state& row) {
  effects out;
  for (auto i : nodes_of(row.key)) {
    if (steps_[i].at == life::acquiring) move(i, life::waiting);
    if (over_ || steps_[i].at != life::waiting || steps_[i].upstream || row.phase != phase::free || !row.failed) continue;
    fail_step(i, failed_as(i, *row.failed), out);
  }
  if (!out.empty()) {
    check_over(out);
    return out;
  }
  return on_rows({row});
}

plan::effects plan::on_granted(const inhash& key, fence token) {
  effects out;
  for (auto i : nodes_of(key)) {
    if (steps_[i].at != life::acquiring) continue;
    move(i, life::queued);
    steps_[i].token = token;
    out.emplace_back(place{i, token});
    return out;
  }
  // no longer wanted; a repeated grant of what is queued or building changes nothing
  for (auto i : nodes_of(key))
    if (steps_[i].at == life::queued || steps_[i].at == life::building) return out;
  if (auto& nodes = nodes_of(key); !nodes.empty()) out.emplace_back(release{nodes.front(), token});
  return out;
}

plan::effects plan::on_acquire_failed(const inhash& key) {
  for (auto i : nodes_of(key))
    if (steps_[i].at == life::acquiring) move(i, life::ready);
  return {};
}

plan::effects plan::on_retry(const inhash& key, fence token) {
  effects out;
  if (over_) return out;
  for (auto i : nodes_of(key))
    if (steps_[i].at == life::delayed && steps_[i].token == token) get_ready(i, out);
  return out;
}

plan::effects plan::on_unplaceable(const inhash& key, const std::string& why, bool offline) {
  effects out;
  for (auto i : nodes_of(key)) {
    if (steps_[i].at != life::queued && steps_[i].at != life::waiting) continue;
    if (!options_.fail_unplaceable || offline) {
      auto e = event_of(i);
      e.text = why;
      out.emplace_back(tell{std::move(e)});
      continue;
    }
    if (why.empty()) continue;
    if (steps_[i].at == life::queued) out.emplace_back(release{i, steps_[i].token});
    fail_step(i, {nodes_[i].drv, key, {}, failure::unplaceable, why, {}}, out);
  }
  check_over(out);
  return out;
}

plan::effects plan::stop() {
  effects out;
  end(request_state::cancelled, out);
  return out;
}

plan::effects plan::repeat() {
  effects out;
  if (over_ || !begun_) return out;
  for (std::uint32_t i = 0; i < nodes_.size() && !over_; ++i) {
    if (steps_[i].at == life::ready) get_ready(i, out);
    if (steps_[i].at == life::queued) out.emplace_back(place{i, steps_[i].token, true});
    if (steps_[i].at == life::waiting) out.emplace_back(lend{nodes_[i].key});
  }
  return out;
}

void plan::on_looked(const std::vector<lock_state>& rows) {
  for (auto& row : rows)
    for (auto i : nodes_of(row.key)) {
      auto& s = steps_[i];
      const bool ours = s.at == life::queued || s.at == life::building;
      const bool ended = row.phase == phase::free || row.phase == phase::realised;
      if (!over_ && ours && (row.token > s.token || (row.token == s.token && ended))) looked_[row.key] = row.token;
    }
}

void plan::on_told(const lock_state& row) {
  if (auto found = looked_.find(row.key); found != looked_.end() && found->second == row.token) looked_.erase(found);
}

std::uint64_t plan::take_lost() { return std::exchange(looked_, {}).size(); }

std::vector<inhash> plan::awaited() const {
  std::vector<inhash> keys;
  if (over_) return keys;
  for (auto& [key, j] : jobs_)
    if (std::any_of(j.nodes.begin(), j.nodes.end(), [&](auto i) {
          auto at = steps_[i].at;
          return at == life::asked || at == life::waiting || at == life::delayed || at == life::queued ||
                 at == life::building;
        }))
      keys.push_back(key);
  return keys;
}

const std::vector<std::uint32_t>& plan::nodes_of(const inhash& key) const {
  static const std::vector<std::uint32_t> none;
  auto found = jobs_.find(key);
  return found == jobs_.end() ? none : found->second.nodes;
}

const std::vector<realised_output>& plan::outputs(std::uint32_t i) const { return jobs_.at(nodes_[i].key).outputs; }

std::vector<std::uint32_t> plan::lacking(std::uint32_t i) const {
  auto inputs = nodes_[i].inputs;
  for (auto& [producer, users] : late_dependants_)
    if (std::find(users.begin(), users.end(), i) != users.end()) inputs.push_back(producer);
  std::erase_if(inputs, [&](auto input) { return steps_[input].at == life::done; });
  return inputs;
}

step_state plan::state(std::uint32_t i) const {
  auto& s = steps_[i];
  switch (s.at) {
    case life::unknown:
    case life::asked:
    case life::wanted: return step_state::planned;
    case life::ready:
    case life::delayed:
    case life::acquiring:
    case life::waiting:
    case life::queued: return step_state::queued;
    case life::building: return step_state::building;
    case life::done: return s.was_wanted && !s.upstream ? step_state::built : step_state::reused;
    case life::failed: return step_state::failed;
    case life::not_attempted: return step_state::not_attempted;
  }
  return step_state::planned;
}

void plan::on_awaited(std::uint32_t i, const lock_state& row, effects& out) {
  auto& s = steps_[i];
  if (row.token < s.token) return; // late news
  if (row.phase == phase::realised) {
    if (row.published) return finish_step(i, out);
    return move(i, life::waiting);
  }
  if (s.upstream) return; // nobody has to build it
  if (row.failed && row.failed->after >= options_.request_number)
    return fail_step(i, failed_as(i, *row.failed), out);
  switch (row.phase) {
    case phase::free:
      if (s.at == life::delayed && s.token == row.token) break;
      s.told_building = false;
      s.token = row.token;
      s.retries = row.retries;
      move(i, life::ready);
      if (begun_) get_ready(i, out);
      break;
    case phase::queued:
      if (row.token == s.token && (s.at == life::queued || s.at == life::waiting)) break;
      s.token = row.token;
      move(i, life::waiting);
      out.emplace_back(lend{row.key});
      break;
    case phase::building:
    case phase::partial: {
      // by a build that was thought lost and came back: nobody else need be found
      if (s.at == life::queued && row.origin != s.token) out.emplace_back(release{i, s.token});
      bool news = !s.told_building || s.token != row.token || row.phase == phase::partial;
      move(i, life::building);
      s.token = row.token;
      s.told_building = true;
      if (!news) break;
      auto e = event_of(i);
      e.node = row.node;
      if (row.phase == phase::partial) e.state = step_state::partial;
      out.emplace_back(tell{std::move(e)});
      break;
    }
    case phase::realised: break;
  }
}

void plan::get_ready(std::uint32_t i, effects& out) {
  if (steps_[i].waits > 0) return move(i, life::wanted); // an input vanished while it was being built
  move(i, life::ready);
  if (!nodes_[i].refused.empty())
    return fail_step(i, {nodes_[i].drv, nodes_[i].key, {}, failure::unsupported, nodes_[i].refused, {}}, out);
  if (steps_[i].retries > 0) return delay(i, out);
  if (busy(jobs_.at(nodes_[i].key))) return move(i, life::waiting);
  move(i, life::acquiring);
  out.emplace_back(acquire{i});
}

// INV-18: not at once, or a full disk uses up every try within a second
void plan::delay(std::uint32_t i, effects& out) {
  auto& s = steps_[i];
  auto wait = options_.retry_first;
  for (auto n = std::exchange(s.retries, 0); n > 1 && wait < options_.retry_max; --n) wait *= 2;
  wait = std::min(wait, options_.retry_max);
  move(i, life::delayed);
  out.emplace_back(retry_later{nodes_[i].key, s.token, wait});
  auto e = event_of(i);
  e.text = fmt::format("its last try came to nothing; tried again in {} s", std::max<std::int64_t>(1, wait.count() / 1000));
  out.emplace_back(tell{std::move(e)});
}

/// A failure that happened before the request was submitted answers it because it happened too often.
failed_step plan::failed_as(std::uint32_t i, const ledger::failure_record& failed) const {
  failed_step why{nodes_[i].drv, nodes_[i].key, failed.token, failed.failure, failed.reason, failed.log_tail};
  if (failed.after < options_.request_number)
    why.reason += fmt::format("; failed {} times, last at {}; `coppice-admin forget-failure {}` or --rebuild to try again",
                               failed.count, utc(failed.last_ms), why.drv.to_string());
  return why;
}

bool plan::busy(const job& j) const {
  return std::any_of(j.nodes.begin(), j.nodes.end(), [&](auto i) {
    auto at = steps_[i].at;
    return at == life::acquiring || at == life::queued || at == life::building;
  });
}

void plan::finish_step(std::uint32_t i, effects& out) {
  bool wanted = steps_[i].was_wanted;
  if (wanted) --open_;
  move(i, life::done);
  out.emplace_back(tell{event_of(i)});
  for_dependants(i, [&](auto d) {
    if (steps_[d].was_wanted && steps_[d].waits > 0 && --steps_[d].waits == 0 && begun_ && !over_ &&
        steps_[d].at == life::wanted)
      get_ready(d, out);
  });
}

void plan::fail_step(std::uint32_t i, failed_step why, effects& out) {
  --open_;
  any_failed_ = true;
  steps_[i].kind = why.failure;
  move(i, life::failed);
  auto e = event_of(i);
  e.token = why.token;
  e.failure = why.failure;
  e.text = why.reason;
  e.log_tail = why.log_tail;
  out.emplace_back(tell{std::move(e)});
  if (failures_.size() < failures_told_max) failures_.push_back(std::move(why));
  abandon_dependants(i, out);
}

void plan::abandon_dependants(std::uint32_t i, effects& out) {
  std::vector<std::uint32_t> todo{i};
  while (!todo.empty()) {
    auto from = todo.back();
    todo.pop_back();
    for_dependants(from, [&](auto d) {
      if (steps_[d].at != life::wanted) return;
      --open_;
      steps_[d].kind = failure::dependency_failed;
      move(d, life::not_attempted);
      auto e = event_of(d);
      e.failure = failure::dependency_failed;
      e.text = nodes_[i].drv.to_string() + " failed";
      out.emplace_back(tell{std::move(e)});
      todo.push_back(d);
    });
  }
}

void plan::check_over(effects& out) {
  if (over_ || discovering_) return;
  if (std::all_of(roots_.begin(), roots_.end(), [&](auto r) { return steps_[r].at == life::done; }))
    return end(request_state::succeeded, out);
  if (any_failed_ && (!options_.keep_going || open_ == 0)) end(request_state::failed, out);
}

void plan::end(request_state state, effects& out) {
  if (over_) return;
  over_ = true;
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    auto& s = steps_[i];
    if (s.at == life::queued) out.emplace_back(release{i, s.token});
    if (s.at == life::unknown || s.at == life::asked || s.at >= life::done) continue;
    s.kind = state == request_state::cancelled ? failure::cancelled : failure::dependency_failed;
    move(i, life::not_attempted);
  }
  out.emplace_back(over{state});
}

void plan::move(std::uint32_t i, life to) {
  auto& s = steps_[i];
  bool built_here = s.was_wanted && !s.upstream;
  if (auto* count = count_of(s.at, built_here)) --*count;
  if (s.at == life::queued) --queued_[nodes_[i].lane];
  if (to == life::queued) ++queued_[nodes_[i].lane];
  s.at = to;
  if (auto* count = count_of(s.at, built_here)) ++*count;
}

std::uint64_t* plan::count_of(life l, bool built_here) {
  switch (l) {
    case life::unknown:
    case life::asked: return nullptr;
    case life::wanted: return &counts_.planned;
    case life::ready:
    case life::delayed:
    case life::acquiring:
    case life::waiting:
    case life::queued: return &counts_.queued;
    case life::building: return &counts_.building;
    case life::done: return built_here ? &counts_.built : &counts_.reused;
    case life::failed: return &counts_.failed;
    case life::not_attempted: return &counts_.not_attempted;
  }
  return nullptr;
}

step_event plan::event_of(std::uint32_t i) const {
  step_event e;
  e.drv = nodes_[i].drv;
  e.key = nodes_[i].key;
  e.state = state(i);
  e.token = steps_[i].token;
  if (e.state == step_state::built)
    for (auto& output : outputs(i)) e.bytes += output.info.nar_size;
  return e;
}

} // namespace coppice::actors
