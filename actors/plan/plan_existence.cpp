#include "actors/plan/plan.hpp"

#include <algorithm>

/// What is there, and what must be built: asked at the start, and again when something turns out to be gone.
namespace coppice::actors {

using ledger::lock_state;
using ledger::phase;

plan::effects plan::start() {
  effects out;
  std::vector<inhash> asks;
  for (auto root : roots_)
    if (steps_[root].at == life::unknown) ask_for(root, asks);
  out.emplace_back(ask{std::move(asks)});
  return out;
}

plan::effects plan::begin(const std::map<std::uint32_t, std::string>& impossible) {
  effects out;
  begun_ = true;
  for (auto& [i, why] : impossible)
    if (steps_[i].at == life::wanted)
      fail_step(i, {nodes_[i].drv, nodes_[i].key, {}, failure::inputs_missing, why, {}}, out);
  for (std::uint32_t i = 0; i < nodes_.size() && !over_; ++i)
    if (steps_[i].at == life::wanted && steps_[i].waits == 0) get_ready(i, out);
  check_over(out);
  return out;
}

plan::effects plan::on_upstream(const inhash& key, const std::vector<realised_output>& outputs) {
  effects out;
  auto found = jobs_.find(key);
  if (over_ || found == jobs_.end()) return out;
  for (auto i : found->second.nodes) {
    auto& s = steps_[i];
    if (s.at != life::asked) continue;
    found->second.outputs = outputs;
    --asking_;
    ++counts_.total;
    if (!s.is_root) {
      finish_step(i, out);
      continue;
    }
    ++open_;
    s.was_wanted = s.upstream = true;
    move(i, life::waiting);
    out.emplace_back(substitute{i});
  }
  check_discovered(out);
  check_over(out);
  return out;
}

plan::effects plan::on_not_substituted(const inhash& key) {
  effects out;
  std::vector<inhash> asks;
  for (auto i : nodes_of(key)) {
    auto& s = steps_[i];
    if (over_ || s.at != life::waiting || !s.upstream) continue;
    ask_for(i, asks);
    --open_;
    --counts_.total;
    s.was_wanted = s.upstream = false;
    discovering_ = true;
  }
  if (!asks.empty()) out.emplace_back(ask{std::move(asks)});
  return out;
}

bool plan::is_asked(const inhash& key) const {
  auto& nodes = nodes_of(key);
  return std::any_of(nodes.begin(), nodes.end(), [&](auto i) { return steps_[i].at == life::asked; });
}

plan::effects plan::on_vanished(const inhash& user, const std::vector<std::uint32_t>& producers) {
  effects out;
  if (over_ || !begun_) return out; // existence is being asked anyway
  std::vector<inhash> asks;
  bool lacking = false;
  for (auto i : nodes_of(user)) {
    if (!want_again(i, out)) continue;
    lacking = discovering_ = true;
    for (auto producer : producers) wait_for(i, producer);
  }
  if (lacking)
    for (auto producer : producers) lose(producer, asks, out);
  if (!asks.empty()) out.emplace_back(ask{std::move(asks)});
  check_discovered(out);
  check_over(out);
  return out;
}

/// False if it is being built or is at its end: nothing can be done for it, or need not.
bool plan::want_again(std::uint32_t i, effects& out) {
  auto at = steps_[i].at;
  if (at < life::wanted || at >= life::building) return false;
  if (at == life::queued) out.emplace_back(release{i, steps_[i].token});
  move(i, life::wanted); // an acquire that is granted now is released
  return true;
}

void plan::wait_for(std::uint32_t user, std::uint32_t producer) {
  auto has = [&](auto& all) { return std::find(all.begin(), all.end(), user) != all.end(); };
  if (has(dependants_[producer]) || has(late_dependants_[producer])) return;
  late_dependants_[producer].push_back(user);
  if (steps_[producer].at != life::done) ++steps_[user].waits;
}

/// What the producer and those that share its inhash made is not there any more: existence is asked as at the start.
void plan::lose(std::uint32_t producer, std::vector<inhash>& asks, effects& out) {
  for (auto i : nodes_of(nodes_[producer].key)) {
    auto& s = steps_[i];
    if (s.at == life::failed || s.at == life::not_attempted) abandon_dependants(i, out);
    if (s.at == life::unknown) ask_for(i, asks);
    if (s.at != life::done) continue;
    for_dependants(i, [&](auto d) {
      if (!steps_[d].was_wanted || steps_[d].at >= life::done) return;
      ++steps_[d].waits;
      want_again(d, out);
    });
    ask_for(i, asks);
    --counts_.total;
    s.was_wanted = s.told_building = s.upstream = false;
    s.token = {};
    discovering_ = true;
  }
}

void plan::on_existence(std::uint32_t i, const lock_state& row, std::vector<inhash>& asks, effects& out) {
  --asking_;
  if (row.phase != phase::realised) {
    if (row.phase == phase::free && row.retries > 0) {
      steps_[i].retries = row.retries;
      steps_[i].token = row.token;
    }
    want(i, asks);
    // what failed since the step was last looked at tells nobody again
    auto& inputs = nodes_[i].inputs;
    auto hopeless = std::find_if(inputs.begin(), inputs.end(), [&](auto input) {
      return steps_[input].at == life::failed || steps_[input].at == life::not_attempted;
    });
    if (hopeless != inputs.end()) abandon_dependants(*hopeless, out);
    return;
  }
  ++counts_.total;
  if (row.published) return finish_step(i, out);
  steps_[i].was_wanted = true; // it only has to be published: none of its inputs matters
  ++open_;
  move(i, life::waiting);
}

void plan::want(std::uint32_t i, std::vector<inhash>& asks) {
  ++counts_.total;
  ++open_;
  steps_[i].was_wanted = true;
  steps_[i].waits = 0;
  for (auto& [producer, users] : late_dependants_) std::erase(users, i);
  move(i, life::wanted);
  for (auto input : nodes_[i].inputs) {
    if (steps_[input].at != life::done) ++steps_[i].waits;
    if (steps_[input].at == life::unknown) ask_for(input, asks);
  }
}

void plan::ask_for(std::uint32_t i, std::vector<inhash>& asks) {
  move(i, life::asked);
  ++asking_;
  asks.push_back(nodes_[i].key);
}

void plan::check_discovered(effects& out) {
  if (!discovering_ || asking_ > 0 || over_) return;
  discovering_ = false;
  discovered d;
  for (std::uint32_t i = 0; i < nodes_.size(); ++i)
    if (steps_[i].at == life::wanted) d.wanted.push_back(i);
  if (!d.wanted.empty() || open_ > 0) out.emplace_back(std::move(d));
}

} // namespace coppice::actors
