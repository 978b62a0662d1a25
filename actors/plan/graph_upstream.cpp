#include "actors/plan/graph.hpp"
#include "runtime/log.hpp"

#include <algorithm>

/// The part of GRAPH that knows of upstream caches: what the ledger does not have is looked for there, in bulk, before
/// the plan hears that it is nowhere.
namespace coppice::actors {
namespace {

constexpr std::size_t complaints_max = 20;
/// Times that one inhash is tried to be substituted although an actor on the way died.
constexpr unsigned substitutions_max = 5;

/// Whether asking again may give what was asked for: nothing is said of the caches.
bool passes(const caf::error& e) {
  return is(e, ec::restarted) || is(e, ec::unavailable) || is(e, ec::overloaded);
}

} // namespace

void graph_state::hear(std::vector<ledger::lock_state> rows) {
  if (peers_.substituter) {
    std::vector<inhash> fresh;
    std::erase_if(rows, [&](auto& row) { return is_sought_upstream(row, fresh); });
    if (!fresh.empty()) ask_upstream(fresh);
  }
  if (!rows.empty()) on_rows(rows);
}

void graph_state::on_rows(const std::vector<ledger::lock_state>& rows) {
  perform(plan_->on_rows(rows));
  for (auto& row : rows) {
    if (row.phase != ledger::phase::free || !row.missing || plan_->nodes_of(row.key).empty()) continue;
    auto producer = closure_->producer(*row.missing);
    if (producer) not_upstream_.insert(plan_->node(*producer).key); // it was told to be there once, and was not
    perform(plan_->on_vanished(row.key, producer));
  }
}

/// Whether the row is held back; `fresh` gets its key if nobody has asked yet.
bool graph_state::is_sought_upstream(const ledger::lock_state& row, std::vector<inhash>& fresh) {
  if (row.phase == ledger::phase::realised || not_upstream_.contains(row.key) || !plan_->is_asked(row.key))
    return false;
  if (auto held = sought_upstream_.find(row.key); held != sought_upstream_.end()) {
    held->second = row;
    return true;
  }
  auto& nodes = plan_->nodes_of(row.key);
  if (std::any_of(nodes.begin(), nodes.end(),
                  [&](auto i) { return compare_.contains(i) || closure_->substitutable(i).empty(); }))
    return false; // what is compared with must be built
  sought_upstream_.emplace(row.key, row);
  fresh.push_back(row.key);
  return true;
}

void graph_state::ask_upstream(const std::vector<inhash>& keys) {
  std::set<nix::store_path> paths;
  for (auto& key : keys)
    for (auto i : plan_->nodes_of(key))
      for (auto& o : closure_->substitutable(i))
        paths.insert(o.info.path);
  self_->call(*peers_.substituter, atom::find_v, std::vector<nix::store_path>(paths.begin(), paths.end()))
      .then([this, keys](upstream_paths& answer) { on_upstream(keys, answer); },
            [this, keys](caf::error& e) { // the rows come again with the next repeat()
              rt::log::warn("GRAPH", "upstream not asked, tried again id={} error={}", request_.id.to_string(),
                            to_string(from_caf(e)));
              for (auto& key : keys)
                sought_upstream_.erase(key);
            });
}

void graph_state::on_upstream(const std::vector<inhash>& keys, const upstream_paths& answer) {
  complain(answer.troubles);
  std::map<nix::store_path, const path_info*> found;
  for (auto& info : answer.found)
    found.emplace(info.path, &info);
  std::vector<ledger::lock_state> nowhere;
  for (auto& key : keys) {
    auto held = sought_upstream_.extract(key);
    std::map<std::string, realised_output> outputs;
    bool all = !held.empty();
    for (auto i : plan_->nodes_of(key))
      for (auto o : closure_->substitutable(i)) {
        auto at = found.find(o.info.path);
        all = all && at != found.end();
        if (!all) break;
        o.info = *at->second;
        outputs.emplace(o.name, std::move(o));
      }
    if (all) {
      std::vector<realised_output> list;
      for (auto& [_, o] : outputs)
        list.push_back(std::move(o));
      perform(plan_->on_upstream(key, list));
    } else if (!held.empty()) {
      not_upstream_.insert(key);
      nowhere.push_back(std::move(held.mapped()));
    }
  }
  if (!nowhere.empty()) on_rows(nowhere);
}

void graph_state::substitute(std::uint32_t node) {
  auto& n = plan_->node(node);
  substitution what{n.key, n.drv, plan_->outputs(node)};
  self_->call(peers_.locks, atom::watch_v, std::vector<inhash>{n.key}, me())
      .then([this](ledger::lock_states& rows) { hear(std::move(rows.rows)); },
            [](caf::error&) {
              // ignored: the next repeat() watches it
            });
  self_->call(*peers_.substituter, atom::substitute_v, std::move(what))
      .then(
          [](ledger::done&) {
            // its row tells
          },
          [this, key = n.key](caf::error& e) {
            if (!passes(e) || ++substitutions_[key] >= substitutions_max) {
              complain({from_caf(e).what});
              not_upstream_.insert(key);
            }
            perform(plan_->on_not_substituted(key));
          });
}

/// Tells the client, once each.
void graph_state::complain(const std::vector<std::string>& troubles) {
  for (auto& trouble : troubles) {
    if (complaints_.size() >= complaints_max || !complaints_.insert(trouble).second) continue;
    step_event e;
    e.drv = plan_->node(plan_->roots().front()).drv;
    e.state = step_state::planned;
    e.text = trouble;
    tell(std::move(e));
  }
}

} // namespace coppice::actors
