#include "actors/plan/graph_keeper.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

#include <algorithm>
#include <set>

namespace coppice::actors {

graph_keeper_state::graph_keeper_state(rt::self<interface>* self, config c, session_actor session,
                                       graph_state::peers peers, rt::supervisor_actor graphs)
  : self_(self), config_(std::move(c)), session_(std::move(session)), peers_(std::move(peers)),
    graph_sup_(std::move(graphs)) {}

graph_keeper_state::interface::behavior_type graph_keeper_state::make_behavior() {
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) { on_down(down); });
  self_->send(self_->incarnation(), atom::tick_v);
  return {
    [this](atom::open_atom, const request_id& id) { read(id); },
    [this](atom::find_atom, const request_id& id) -> caf::result<graph_actor> {
      auto found = graphs_.find(id);
      if (found != graphs_.end()) return found->second.graph;
      return make_error(ec::not_found, "request " + id.to_string() + " is not owned here");
    },
    [this](atom::changed_atom, const ledger::changed& c) {
      for (auto& id : c.requests) read(id);
    },
    [this](atom::tick_atom) {
      for (auto& [id, result] : failing_) give_up(id);
      scan();
      self_->later(config_.adopt_scan, atom::tick_v);
    },
  };
}

// After a death the same name serves again. A name that is retired says why to whoever monitors it only then.
void graph_keeper_state::on_down(const caf::down_msg& down) {
  auto found =
    std::find_if(graphs_.begin(), graphs_.end(), [&](auto& g) { return g.second.graph.address() == down.source; });
  if (found == graphs_.end()) return;
  auto& [id, g] = *found;
  const bool by_itself = !down.reason || down.reason == caf::exit_reason::normal;
  if (!by_itself && !is(down.reason, ec::too_many_restarts) && !g.retired) {
    g.retired = config_.directory->find_as<graph_actor>(path_of(g.request, g.epoch)) != g.graph;
    self_->monitor(g.graph);
    return;
  }
  if (is(down.reason, ec::too_many_restarts)) {
    request_result r;
    r.state = request_state::failed;
    r.reason = "its coordinator died more than " + std::to_string(config_.graph_deaths_max) +
               " times within a minute, at last " + from_caf(down.reason).what;
    for (auto& root : g.request.body.roots) r.roots.push_back({root.drv, {}, failure::poisoned});
    failing_[id] = ledger::finish{id, g.epoch, std::move(r), {}};
    give_up(id);
  }
  graphs_.erase(found);
}

void graph_keeper_state::give_up(const request_id& id) {
  auto& result = failing_.at(id);
  rt::log::error("GRAPH_KEEPER", "request fails id={} reason=\"{}\"", id.to_string(), result.result.reason);
  transact<ledger::request_row>(
    self_, peers_.ledger, result,
    [this, id](ledger::request_row&) {
      failing_.erase(id);
      scan(); // what its GRAPH held
    },
    [this, id](const error& e) {
      if (e.code == ec::not_owner) failing_.erase(id); // another coordinator has it
      rt::log::warn("GRAPH_KEEPER", "result not stored, tried again id={} error={}", id.to_string(), to_string(e));
    });
}

void graph_keeper_state::read(const request_id& id) {
  transact<ledger::request_rows>(
    self_, peers_.ledger, ledger::read_requests{id, 1},
    [this](ledger::request_rows& rows) {
      for (auto& row : rows.rows) {
        if (row.state == request_state::open && !known(row.id)) adopt(row);
        if (auto g = graphs_.find(row.id); row.state != request_state::open && g != graphs_.end())
          self_->send(g->second.graph, atom::stop_v);
      }
    },
    [](const error&) {
      // ignored: the next scan reads all open requests
    });
}

void graph_keeper_state::scan() {
  transact<ledger::lock_states>(
    self_, peers_.ledger, ledger::held_locks{config_.me, ledger::rows_unlimited}, [this](ledger::lock_states& held) { read_open(held.rows); },
    [](const error& e) { rt::log::warn("GRAPH_KEEPER", "locks not read, tried again error={}", to_string(e)); });
}

void graph_keeper_state::read_open(const std::vector<ledger::lock_state>& held) {
  transact<ledger::request_rows>(
    self_, peers_.ledger, ledger::read_requests{{}, 0},
    [this, held](ledger::request_rows& open) {
      std::set<request_id> over;
      for (auto& [id, graph] : graphs_) over.insert(id);
      for (auto& row : open.rows) {
        over.erase(row.id);
        if (row.state == request_state::open && !known(row.id)) adopt(row);
      }
      for (auto& id : over) read(id); // its GRAPH may not have been told
      release_orphans(held, open.rows);
      self_->doing(std::to_string(graphs_.size()) + " requests owned");
      config_.graph.events.gauge([n = open.rows.size()](auto& g) { g.requests_open = n; });
    },
    [](const error& e) { rt::log::warn("GRAPH_KEEPER", "open requests not read, tried again error={}", to_string(e)); });
}

// A queued lock whose request is over is nobody's: its GRAPH ended before it heard of the grant, or the release was
// lost. Nobody else would ever give it back (reliability.md 4.4). The locks are read first: a lock is granted to open
// requests only.
void graph_keeper_state::release_orphans(const std::vector<ledger::lock_state>& held,
                                         const std::vector<ledger::request_row>& open) {
  std::set<nonce> askers;
  for (auto& row : open) askers.insert(graph_nonce(row.id, row.epoch));
  for (auto& row : held) {
    if (row.phase != ledger::phase::queued || askers.contains(row.holder.nonce)) continue;
    self_->send(peers_.allocator, atom::withdraw_v, withdraw{row.key, row.token});
    self_->call(peers_.locks, atom::release_v,
                ledger::release{row.key, row.token, failure::cancelled, "its request is over"})
      .then([](ledger::done&) {},
            [](caf::error&) {
              // ignored: the next scan finds it again
            });
  }
}

void graph_keeper_state::adopt(const ledger::request_row& row) {
  if (!adopting_.emplace(row.id, row.epoch).second) return;
  auto give_up = [this, id = row.id](const error& e) {
    adopting_.erase(id);
    rt::log::debug("GRAPH_KEEPER", "request not adopted id={} error={}", id.to_string(), to_string(e));
  };
  self_->call(session_, atom::get_v)
    .then(
      [this, row, give_up](const session_info& me) {
        transact<ledger::owned>(
          self_, peers_.ledger, ledger::adopt{row.id, me.session},
          [this, row](ledger::owned& o) { spawn(row, o.epoch); }, give_up);
      },
      [give_up](caf::error& e) { give_up(from_caf(e)); });
}

std::string graph_keeper_state::name_of(const ledger::request_row& row, epoch e) {
  return row.id.to_string().substr(0, 12) + "-" + std::to_string(e.value);
}

std::string graph_keeper_state::path_of(const ledger::request_row& row, epoch e) const {
  return config_.graphs_path + "/" + name_of(row, e);
}

void graph_keeper_state::spawn(const ledger::request_row& row, epoch e) {
  rt::child_options options;
  options.kind = rt::restart_kind::transient;
  options.own_restarts_max = config_.graph_deaths_max;
  rt::start_child<graph_state>(self_, graph_sup_, name_of(row, e), options, config_.graph, peers_, row, e)
    .then([this, row, e](const caf::strong_actor_ptr& ref) { keep(caf::actor_cast<graph_actor>(ref), row, e); },
          [this, row, e](caf::error& why) {
            auto running = config_.directory->find_as<graph_actor>(path_of(row, e));
            if (is(why, ec::conflict) && running) return keep(running, row, e); // since before this KEEPER was restarted
            adopting_.erase(row.id);
            rt::log::warn("GRAPH_KEEPER", "graph not started, tried again id={} error={}", row.id.to_string(),
                          to_string(from_caf(why)));
          });
}

void graph_keeper_state::keep(const graph_actor& graph, const ledger::request_row& row, epoch e) {
  adopting_.erase(row.id);
  graphs_[row.id] = {graph, row, e};
  self_->monitor(graph);
}

} // namespace coppice::actors
