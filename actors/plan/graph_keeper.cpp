#include "actors/plan/graph_keeper.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

#include <set>

namespace coppice::actors {

graph_keeper_state::graph_keeper_state(rt::self<interface>* self, config c, session_actor session,
                                       graph_state::peers peers, rt::supervisor_actor graphs)
  : self_(self), config_(std::move(c)), session_(std::move(session)), peers_(std::move(peers)),
    graph_sup_(std::move(graphs)) {}

graph_keeper_state::interface::behavior_type graph_keeper_state::make_behavior() {
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) {
    // a normal end; after a crash the same name serves again, and find() or the next scan picks it up
    std::erase_if(graphs_, [&](auto& g) { return g.second.address() == down.source; });
  });
  self_->send(self_->incarnation(), atom::tick_v);
  return {
    [this](atom::open_atom, const request_id& id) { read(id); },
    [this](atom::find_atom, const request_id& id) -> caf::result<graph_actor> {
      auto found = graphs_.find(id);
      if (found != graphs_.end()) return found->second;
      return make_error(ec::not_found, "request " + id.to_string() + " is not owned here");
    },
    [this](atom::changed_atom, const ledger::changed& c) {
      for (auto& id : c.requests) read(id);
    },
    [this](atom::tick_atom) {
      scan();
      self_->later(config_.adopt_scan, atom::tick_v);
    },
  };
}

void graph_keeper_state::read(const request_id& id) {
  transact<ledger::request_rows>(
    self_, peers_.ledger, ledger::read_requests{id, 1},
    [this](ledger::request_rows& rows) {
      for (auto& row : rows.rows) {
        if (row.state == request_state::open && !graphs_.contains(row.id)) adopt(row);
        if (auto g = graphs_.find(row.id); row.state != request_state::open && g != graphs_.end())
          self_->send(g->second, atom::stop_v);
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
        if (row.state == request_state::open && !graphs_.contains(row.id)) adopt(row);
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

void graph_keeper_state::spawn(const ledger::request_row& row, epoch e) {
  auto child = row.id.to_string().substr(0, 12) + "-" + std::to_string(e.value);
  rt::child_options options;
  options.kind = rt::restart_kind::transient;
  rt::start_child<graph_state>(self_, graph_sup_, child, options, config_.graph, peers_, row, e)
    .then(
      [this, id = row.id](const caf::strong_actor_ptr& ref) {
        adopting_.erase(id);
        auto graph = caf::actor_cast<graph_actor>(ref);
        graphs_[id] = graph;
        self_->monitor(graph);
      },
      [this, id = row.id, child](caf::error& why) {
        adopting_.erase(id);
        auto reason = from_caf(why);
        auto running = config_.directory->find_as<graph_actor>(config_.graphs_path + "/" + child);
        if (reason.code == ec::conflict && running) { // it runs since before this KEEPER was restarted
          graphs_[id] = running;
          self_->monitor(running);
          return;
        }
        rt::log::warn("GRAPH_KEEPER", "graph not started, tried again id={} error={}", id.to_string(), to_string(reason));
      });
}

} // namespace coppice::actors
