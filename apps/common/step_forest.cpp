#include "apps/common/step_forest.hpp"

#include "nix/derivation.hpp"

#include <algorithm>
#include <deque>

namespace coppice::app {

step_graph graph_of(const derivation_closure& closure, const std::vector<request_root>& roots) {
  step_graph graph;
  std::map<nix::store_path, std::uint32_t> index;
  for (const auto& [drv, entry] : closure.derivations)
    index.emplace_hint(index.end(), drv, static_cast<std::uint32_t>(index.size()));
  graph.nodes.reserve(index.size());
  for (const auto& [drv, entry] : closure.derivations) {
    auto& node = graph.nodes.emplace_back(step_graph::node{drv, {}});
    for (const auto& [input, outputs] : entry.parsed.input_drvs)
      node.inputs.push_back(index.at(input));
  }
  for (const auto& root : roots)
    graph.roots.push_back(index.at(root.drv));
  return graph;
}

step_forest::step_forest(step_graph graph)
    : graph_(std::move(graph))
    , dependants_(graph_.nodes.size())
    , state_(graph_.nodes.size(), state::open)
    , usual_(graph_.nodes.size(), 0) {
  const auto size = static_cast<std::uint32_t>(graph_.nodes.size());
  std::vector<std::uint32_t> above(size, 0);
  for (std::uint32_t i = 0; i < size; ++i) {
    const auto& node = graph_.nodes[i];
    index_.emplace(node.drv, i);
    named_[std::string(nix::name_without_version(nix::derivation_name(node.drv)))].push_back(i);
    for (const auto input : node.inputs) {
      dependants_[input].push_back(i);
      ++above[input];
    }
  }
  for (std::uint32_t i = 0; i < size; ++i)
    if (above[i] == 0) order_.push_back(i);
  for (std::size_t next = 0; next < order_.size(); ++next)
    for (const auto input : graph_.nodes[order_[next]].inputs)
      if (--above[input] == 0) order_.push_back(input);
}

std::uint32_t step_forest::index_of(const nix::store_path& drv) const {
  const auto found = index_.find(drv);
  return found == index_.end() ? none : found->second;
}

void step_forest::take(const step_event& event) {
  const auto i = index_of(event.drv);
  if (i == none) return;
  auto next = state::open;
  switch (event.state) {
  case step_state::planned:
  case step_state::queued:
  case step_state::building:
  case step_state::partial: break;
  case step_state::reused:
  case step_state::built: next = state::done; break;
  case step_state::failed: next = state::failed; break;
  case step_state::not_attempted: next = state::given_up; break;
  }
  if (state_[i] == next) return;
  // What was there already hides all below it; and what comes back, as a step that is tried again, is rare.
  if (event.state == step_state::reused || state_[i] != state::open) stale_ = true;
  state_[i] = next;
  sums_stale_ = true;
  if (next == state::failed) failures_.push_back(i);
  if (next == state::done && !stale_)
    for (const auto d : dependants_[i])
      if (open_inputs_[d] > 0) --open_inputs_[d];
}

void step_forest::find_wanted() {
  if (!stale_) return;
  stale_ = false;
  sums_stale_ = paths_stale_ = true;
  const auto size = graph_.nodes.size();
  wanted_.assign(size, false);
  parent_.assign(size, none);
  root_of_.assign(size, none);
  depth_.assign(size, 0);
  open_inputs_.assign(size, 0);
  above_.assign(size, none);
  std::deque<std::uint32_t> todo;
  for (const auto root : graph_.roots) {
    if (wanted_[root] || state_[root] == state::done) continue;
    wanted_[root] = true;
    root_of_[root] = root;
    todo.push_back(root);
  }
  for (; !todo.empty(); todo.pop_front()) {
    const auto i = todo.front();
    for (const auto input : graph_.nodes[i].inputs) {
      if (state_[input] == state::done) continue;
      ++open_inputs_[i];
      if (wanted_[input]) continue;
      wanted_[input] = true;
      parent_[input] = i;
      root_of_[input] = root_of_[i];
      depth_[input] = depth_[i] + 1;
      todo.push_back(input);
    }
  }
}

std::uint32_t step_forest::nearest_waiting(std::uint32_t node) {
  auto& chosen = above_[node];
  if (chosen != none && waits(chosen)) return chosen;
  // The one that can start soonest: it is what the step is built for now.
  chosen = none;
  const auto& all = dependants_[node];
  for (std::size_t i = 0; i < std::min(all.size(), dependants_seen_max); ++i) {
    const auto d = all[i];
    if (!waits(d)) continue;
    const auto better = [&] {
      return std::pair{open_inputs_[d], depth_[d]} < std::pair{open_inputs_[chosen], depth_[chosen]};
    };
    if (chosen == none || better()) chosen = d;
  }
  for (auto p = parent_[node]; chosen == none && p != none; p = parent_[p])
    if (waits(p)) chosen = p;
  return chosen;
}

step_forest::leaf step_forest::leaf_of(std::uint32_t node, forest_row row) {
  leaf l{std::move(row), none, none, 0};
  if (node == none || !wanted_[node]) return l;
  if (l.row.what == forest_row::kind::failed) { // nothing waits for it any more
    if (root_of_[node] == node) return l;
    l.root = root_of_[node];
    l.above = parent_[node];
  } else {
    l.above = nearest_waiting(node);
    if (l.above == none) return l;
    l.root = root_of_[l.above];
  }
  l.levels = depth_[l.above];
  return l;
}

std::vector<step_forest::leaf> step_forest::leaves_of(const std::vector<running_step>& running,
                                                      std::size_t leaves_max) {
  std::vector<leaf> leaves;
  std::size_t failed = 0; // of which the newest are shown
  for (auto f = failures_.rbegin(); f != failures_.rend() && failed < failures_shown_max; ++f)
    if (state_[*f] == state::failed) ++failed;
  const auto kept = std::min(failed, leaves_max / 3);
  for (std::size_t i = 0; i < running.size() && leaves.size() + kept < leaves_max; ++i)
    leaves.push_back(leaf_of(index_of(running[i].drv), {"", forest_row::kind::running, running[i].drv, i}));
  auto left = kept;
  for (auto f = failures_.rbegin(); f != failures_.rend() && left > 0; ++f)
    if (state_[*f] == state::failed) {
      leaves.push_back(leaf_of(*f, {"", forest_row::kind::failed, graph_.nodes[*f].drv, 0}));
      --left;
    }
  return leaves;
}

std::vector<forest_row> step_forest::draw(const std::vector<leaf>& leaves, forest_depth depth) const {
  struct group { // leaves below one waiting step, or one leaf right below its root
    std::uint32_t above = none;
    std::vector<const leaf*> leaves;
  };
  struct tree {
    std::uint32_t root = none;
    std::vector<group> groups;
  };
  std::vector<tree> trees;
  for (const auto& l : leaves) {
    const auto root = depth == forest_depth::flat ? none : l.root;
    auto t = std::find_if(trees.begin(), trees.end(), [&](auto& x) { return root != none && x.root == root; });
    if (t == trees.end()) t = trees.insert(t, tree{root, {}});
    const bool direct = depth != forest_depth::waiting || l.above == root || l.row.what == forest_row::kind::failed;
    const auto above = direct ? none : l.above;
    auto g =
        std::find_if(t->groups.begin(), t->groups.end(), [&](auto& x) { return above != none && x.above == above; });
    if (g == t->groups.end()) g = t->groups.insert(g, group{above, {}});
    g->leaves.push_back(&l);
  }
  const auto waiting = [&](const std::string& branch, std::uint32_t i) {
    if (!waits(i)) return forest_row{branch, forest_row::kind::given_up, graph_.nodes[i].drv, 0};
    return forest_row{branch, forest_row::kind::waiting, graph_.nodes[i].drv, open_inputs_[i]};
  };
  const auto fork = [](bool last, bool cut) { return std::string(last ? "└" : "├") + (cut ? "┄ " : "─ "); };
  std::vector<forest_row> rows;
  const auto put = [&](const std::string& branch, const leaf& l) {
    rows.push_back(l.row);
    rows.back().branch = branch;
  };
  for (const auto& t : trees) {
    if (t.root == none) {
      for (const auto& g : t.groups)
        for (const auto* l : g.leaves)
          put("", *l);
      continue;
    }
    rows.push_back(waiting("", t.root));
    for (const auto& g : t.groups) {
      const bool last = &g == &t.groups.back();
      if (g.above == none) {
        put(fork(last, g.leaves.front()->above != t.root), *g.leaves.front());
        continue;
      }
      rows.push_back(waiting(fork(last, g.leaves.front()->levels > 1), g.above));
      for (const auto* l : g.leaves)
        put((last ? "   " : "│  ") + fork(l == g.leaves.back(), false), *l);
    }
  }
  return rows;
}

std::vector<forest_row> step_forest::rows(const std::vector<running_step>& running, std::size_t room,
                                          forest_depth most) {
  find_wanted();
  if (room == 0) return {};
  const auto leaves = leaves_of(running, room);
  const auto left_out =
      running.size() - static_cast<std::size_t>(std::count_if(leaves.begin(), leaves.end(), [](auto& l) {
        return l.row.what == forest_row::kind::running;
      }));
  if (left_out == 0)
    for (auto depth = most;; depth = static_cast<forest_depth>(static_cast<int>(depth) - 1)) {
      auto rows = draw(leaves, depth);
      if (rows.size() <= room) return rows;
    }
  auto rows = draw(leaves, forest_depth::flat);
  const auto cut = rows.size() >= room ? rows.size() - room + 1 : 0;
  std::size_t hidden = left_out;
  for (std::size_t i = 0; i < cut; ++i) { // from the end of what runs: failures stay
    const auto victim =
        std::find_if(rows.rbegin(), rows.rend(), [](auto& r) { return r.what == forest_row::kind::running; });
    if (victim == rows.rend()) {
      rows.pop_back();
      continue;
    }
    rows.erase(std::next(victim).base());
    ++hidden;
  }
  rows.push_back({"", forest_row::kind::more, {}, hidden});
  return rows;
}

std::vector<std::string> step_forest::names_to_ask(std::size_t names_max) {
  find_wanted();
  if (!listed_) {
    listed_ = true;
    for (const auto& [name, nodes] : named_)
      if (std::any_of(nodes.begin(), nodes.end(), [&](auto i) { return waits(i); })) unasked_.push_back(&name);
  }
  std::vector<std::string> names;
  for (; !unasked_.empty() && names.size() < names_max; unasked_.pop_back())
    names.push_back(*unasked_.back());
  return names;
}

void step_forest::learn(const std::string& name, ms usual) {
  const auto found = named_.find(name);
  if (found == named_.end()) return;
  for (const auto i : found->second)
    usual_[i] = usual.count();
  sums_stale_ = paths_stale_ = true;
}

void step_forest::sum_up() {
  if (!sums_stale_) return;
  sums_stale_ = false;
  left_ms_ = 0;
  left_ = left_known_ = 0;
  std::int64_t known_ms = 0;
  for (std::uint32_t i = 0; i < state_.size(); ++i) {
    if (!waits(i)) continue;
    ++left_;
    left_known_ += usual_[i] > 0;
    known_ms += usual_[i];
  }
  const auto mean = left_known_ > 0 ? known_ms / static_cast<std::int64_t>(left_known_) : mean_;
  if (mean != mean_) paths_stale_ = true;
  mean_ = mean;
  left_ms_ = known_ms + mean_ * static_cast<std::int64_t>(left_ - left_known_);
}

void step_forest::find_paths() {
  if (!paths_stale_) return;
  paths_stale_ = false;
  path_ms_.assign(state_.size(), 0);
  for (const auto i : order_) {
    if (!waits(i)) continue;
    for (const auto input : graph_.nodes[i].inputs)
      path_ms_[input] = std::max(path_ms_[input], path_ms_[i] + cost(i));
  }
}

std::optional<step_forest::ms> step_forest::rest(const std::vector<running_step>& running, std::size_t parallel) {
  find_wanted();
  sum_up();
  if (left_ == 0 || left_known_ * 2 < left_) return {};
  find_paths();
  auto work = left_ms_;
  std::int64_t longest = 0;
  for (const auto& step : running) {
    const auto i = index_of(step.drv);
    if (i == none || !waits(i)) continue;
    const auto done = std::min(step.elapsed_ms, cost(i));
    work -= done;
    longest = std::max(longest, cost(i) - done + path_ms_[i]);
  }
  return ms{std::max(longest, work / static_cast<std::int64_t>(std::max<std::size_t>(parallel, 1)))};
}

} // namespace coppice::app
