#include "actors/plan/graph.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

#include <algorithm>

/// The part of GRAPH that knows of upstream caches: what is not realised is looked for among what was taken from them
/// before, and then there, in bulk, before the plan hears that it is nowhere.
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
  std::vector<inhash> fresh;
  std::erase_if(rows, [&](auto& row) { return is_sought_upstream(row, fresh); });
  if (!fresh.empty()) seek(fresh);
  if (!rows.empty()) on_rows(rows);
}

void graph_state::on_rows(const std::vector<ledger::lock_state>& rows) {
  perform(plan_->on_rows(rows));
  for (auto& row : rows) {
    if (row.phase != ledger::phase::free || row.missing.empty() || plan_->nodes_of(row.key).empty()) continue;
    std::vector<std::uint32_t> producers;
    for (auto& path : row.missing)
      if (auto producer = closure_->producer(path)) {
        producers.push_back(*producer);
        not_upstream_.insert(plan_->node(*producer).key); // it was told to be there once, and was not
      }
    perform(plan_->on_vanished(row.key, producers));
  }
}

/// Whether the row is held back; `fresh` gets its key if nobody has asked yet.
bool graph_state::is_sought_upstream(const ledger::lock_state& row, std::vector<inhash>& fresh) {
  if (row.phase == ledger::phase::realised) {
    sought_upstream_.erase(row.key); // what was held back is the past
    return false;
  }
  if (not_upstream_.contains(row.key) || !plan_->is_asked(row.key)) return false;
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

/// What IMPORTER put into the farm's store no realisation names.
void graph_state::seek(const std::vector<inhash>& keys) {
  std::set<nix::store_path> paths;
  for (auto& key : keys)
    for (auto i : plan_->nodes_of(key))
      for (auto& o : closure_->substitutable(i))
        paths.insert(o.info.path);
  ledger::read_paths read;
  read.paths.assign(paths.begin(), paths.end());
  transact<ledger::path_infos>(
      self_, peers_.ledger, std::move(read),
      [this, keys, paths](ledger::path_infos& here) mutable {
        for (auto& info : here.rows)
          paths.erase(info.path);
        upstream_paths known{std::move(here.rows), {}, {}};
        if (paths.empty() || !peers_.substituter) return on_upstream(keys, known);
        ask_upstream(keys, {paths.begin(), paths.end()}, std::move(known));
      },
      [this, keys](const error& e) { not_sought(keys, e); });
}

void graph_state::ask_upstream(const std::vector<inhash>& keys, std::vector<nix::store_path> paths,
                               upstream_paths known) {
  self_->call(*peers_.substituter, atom::find_v, std::move(paths))
      .then(
          [this, keys, known](upstream_paths& answer) {
            answer.found.insert(answer.found.end(), known.found.begin(), known.found.end());
            on_upstream(keys, answer);
          },
          [this, keys](caf::error& e) { not_sought(keys, from_caf(e)); });
}

// the rows come again with the next repeat()
void graph_state::not_sought(const std::vector<inhash>& keys, const error& e) {
  rt::log::warn("GRAPH", "outputs not looked for, tried again id={} error={}", request_.id.to_string(), to_string(e));
  for (auto& key : keys)
    sought_upstream_.erase(key);
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
  auto& outputs = plan_->outputs(node);
  self_->call(peers_.locks, atom::watch_v, std::vector<inhash>{n.key}, me())
      .then([this](ledger::lock_states& rows) { hear(std::move(rows.rows)); },
            [](caf::error&) {
              // ignored: the next repeat() watches it
            });
  if (std::all_of(outputs.begin(), outputs.end(), [](auto& o) { return !o.info.blob.empty(); })) return adopt(node);
  self_->call(*peers_.substituter, atom::substitute_v, substitution{n.key, n.drv, outputs})
      .then(
          [](ledger::done&) {
            // its row tells
          },
          [this, key = n.key](caf::error& e) {
            if (passes(e) && ++substitutions_[key] < substitutions_max) return perform(plan_->on_not_substituted(key));
            on_not_substituted(key, from_caf(e));
          });
}

/// Its outputs are in the farm's store, and with them all that they refer to (INV-3).
void graph_state::adopt(std::uint32_t node) {
  auto& n = plan_->node(node);
  transact<ledger::done>(
      self_, peers_.ledger, ledger::substitute{n.key, n.drv, plan_->outputs(node)},
      [](ledger::done&) {
        // its row tells
      },
      [this, node, key = n.key](const error& e) {
        if (e.code == ec::upload_again || e.code == ec::conflict || e.code == ec::invalid)
          return on_not_substituted(key, e);
        unadopted_.insert(node);
        rt::log::warn("GRAPH", "outputs not adopted, tried again drv={} error={}",
                      plan_->node(node).drv.to_string(), to_string(e));
      });
}

void graph_state::on_not_substituted(const inhash& key, const error& e) {
  complain({e.what});
  not_upstream_.insert(key);
  perform(plan_->on_not_substituted(key));
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
