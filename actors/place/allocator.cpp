#include "actors/place/allocator.hpp"

#include "runtime/log.hpp"

namespace coppice::actors {

allocator_state::allocator_state(rt::self<interface>* self, config c)
  : self_(self), config_(std::move(c)), placement_(config_.limits) {}

allocator_state::interface::behavior_type allocator_state::make_behavior() {
  self_->later(config_.tick, atom::tick_v);
  recall_machines();
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) { on_down(down); });
  return {
      [this](atom::place_atom, const job& j, const graph_actor& graph) -> caf::result<ledger::done> {
        placement::effects out;
        if (!placement_.add(j, config_.clock->now(), out))
          return make_error(ec::overloaded,
                            "the allocator has " + std::to_string(config_.limits.jobs_max) + " jobs waiting");
        if (placement_.knows(j.key)) graphs_.insert_or_assign(j.key, graph);
        perform(out);
        return ledger::done{};
      },
      [this](atom::place_atom, const lend& l) {
        for (auto& key : l.keys)
          placement_.lend(key, l.priority);
      },
      [this](atom::withdraw_atom, const withdraw& w) {
        placement_.remove(w.key, w.token);
        graphs_.erase(w.key);
      },
      [this](atom::offer_atom, const offer& o, const assignee_actor& pool) {
        pools_.insert_or_assign(o.node, pool);
        if (watched_.insert_or_assign(o.node, pool.address()).second) self_->monitor(pool);
        placement::effects out;
        placement_.on_offer(o, config_.clock->now(), out);
        perform(out);
      },
      [this](atom::queue_atom, const get_queue& q) -> caf::result<job_queue> {
        return placement_.page(q, config_.clock->now());
      },
      [this](atom::nodes_atom, const get_nodes&) -> caf::result<node_statuses> {
        return placement_.machines(config_.clock->now());
      },
      [this](atom::explain_atom, const placing_query& q) -> caf::result<placing> {
        return placement_.explain(q, config_.clock->now());
      },
      [this](atom::tick_atom) {
        placement::effects out;
        placement_.tick(config_.clock->now(), out);
        perform(out);
        tell_shortage();
        tell_queue();
        tell_corrections();
        note_machines();
        self_->later(config_.tick, atom::tick_v);
      },
      [this](atom::stored_atom, const std::shared_ptr<const known_machines>& all, const caf::error& e) {
        if (e) rt::log::warn("ALLOCATOR", "machines of before not known error={}", to_string(from_caf(e)));
        if (all) recalled(*all);
        noted_ = 0;
      },
      [this](atom::done_atom, std::uint64_t comings, const caf::error& e) {
        if (e) rt::log::warn("ALLOCATOR", "machines not written down, tried again error={}", to_string(from_caf(e)));
        noted_ = e ? 0 : comings;
      },
  };
}

void allocator_state::perform(placement::effects& effects) {
  for (auto& e : effects) {
    if (auto* a = std::get_if<placement::assign>(&e)) assign(*a);
    if (auto* r = std::get_if<placement::recheck>(&e)) recheck(*r);
    if (auto* p = std::get_if<placement::prepare>(&e))
      self_->send(pools_.at(p->node), atom::prefetch_v, prefetch{p->job.key, p->job.inputs});
    if (auto* u = std::get_if<placement::unplaceable>(&e))
      if (auto graph = graphs_.find(u->key); graph != graphs_.end())
        self_->send(graph->second, atom::waiting_v, waiting{u->key, u->why, u->offline});
  }
  self_->doing(std::to_string(placement_.waiting()) + " jobs waiting, " + std::to_string(placement_.slots_free(false)) +
               " slots and " + std::to_string(placement_.slots_free(true)) + " I/O slots free, " +
               std::to_string(placement_.corrections()) + " lost placements made good");
}

// A pool of this node that is started again answers for itself; one of a node that cannot be reached does not.
void allocator_state::on_down(const caf::down_msg& down) {
  for (auto w = watched_.begin(); w != watched_.end(); ++w) {
    if (w->second != down.source) continue;
    const auto node = w->first;
    watched_.erase(w);
    if (!is(down.reason, ec::peer_down)) return;
    rt::log::warn("ALLOCATOR", "machine offline name={}", node.value);
    placement::effects out;
    placement_.on_gone(node, config_.clock->now(), out);
    return perform(out);
  }
}

void allocator_state::tell_corrections() {
  const auto now = config_.clock->now();
  if (placement_.corrections() == corrections_told_) return;
  if (corrections_told_at_ && now - *corrections_told_at_ < config_.corrections_told_every) return;
  corrections_told_at_ = now;
  const auto before = std::exchange(corrections_told_, placement_.corrections());
  tell_reconciled(config_.events, "placements", corrections_told_ - before);
}

// Repeated, for graphs come and go; only while a machine is short of something.
void allocator_state::tell_shortage() {
  const auto why = placement_.shortage();
  if (why.empty() && told_.empty()) return;
  auto before = std::exchange(told_, {});
  if (!why.empty())
    for (auto& [key, graph] : graphs_) told_.emplace(graph.address(), graph);
  for (auto& [address, graph] : told_) self_->send(graph, atom::waiting_v, waiting{{}, why});
  for (auto& [address, graph] : before)
    if (!told_.contains(address)) self_->send(graph, atom::waiting_v, waiting{});
}

void allocator_state::tell_queue() {
  config_.events.gauge([&](event_log::gauges& g) {
    g.steps_waiting = placement_.waiting(false);
    g.io_steps_waiting = placement_.waiting(true);
    auto since = placement_.oldest_waiting();
    g.oldest_waiting_ms =
        since ? std::chrono::duration_cast<std::chrono::milliseconds>(config_.clock->now() - *since).count() : 0;
    g.slots_free = placement_.slots_free(false);
    g.io_slots_free = placement_.slots_free(true);
  });
}

void allocator_state::assign(const placement::assign& a) {
  auto key = a.job.key;
  auto token = a.job.token;
  auto node = a.node;
  self_->call(pools_.at(node), atom::assign_v, a.job)
    .then(
      [this, key, token](bool fresh) {
        placement_.on_assigned(key, token, fresh, config_.clock->now());
        graphs_.erase(key);
      },
      [this, key, token, node](caf::error& e) {
        rt::log::debug("ALLOCATOR", "assignment refused node={} key={} error={}", node.value, key.to_string(),
                       to_string(from_caf(e)));
        placement::effects out;
        placement_.on_refused(key, token, node, !is(e, ec::conflict), config_.clock->now(), out);
        perform(out);
      });
}

void allocator_state::recheck(const placement::recheck& r) {
  self_->call(pools_.at(r.node), atom::assign_v, r.job)
    .then(
      [this, key = r.job.key, token = r.job.token](bool fresh) {
        placement_.on_assigned(key, token, fresh, config_.clock->now());
      },
      [this, j = r.job](caf::error& e) {
        if (is(e, ec::conflict)) return; // it has to do with it: the next repetition tells
        placement::effects out;
        placement_.on_lost(j, config_.clock->now(), out);
        perform(out);
      });
}

void allocator_state::recall_machines() {
  if (config_.machines_file.empty()) return;
  using all_of_them = std::shared_ptr<const known_machines>;
  auto told = [me = self_->incarnation()](all_of_them all, caf::error e) {
    caf::anon_send(me, atom::stored_v, std::move(all), std::move(e));
  };
  const bool posted = rt::post_and_send(
      *config_.pool, [file = config_.machines_file] { return read_known_machines(file); },
      [told](expected<known_machines> all) {
        all ? told(std::make_shared<const known_machines>(std::move(*all)), {}) : told({}, make_error(all.error()));
      },
      [told](const std::string& what) { told({}, make_error(ec::crashed, what)); });
  if (!posted) told({}, make_error(ec::overloaded, "the pool is full"));
}

void allocator_state::recalled(const known_machines& all) {
  const auto wall = std::chrono::duration_cast<std::chrono::milliseconds>(config_.clock->wall_now().time_since_epoch());
  for (const auto& m : all.rows) {
    const auto ago =
        std::max(std::chrono::milliseconds{0}, wall - std::chrono::milliseconds{m.heard_ms}); // clocks are set
    placement_.remember(m.what, config_.clock->now() - ago);
  }
}

// One that comes or goes while the file is written is written down at the next tick.
void allocator_state::note_machines() {
  if (!noted_ || *noted_ == placement_.comings()) return;
  noted_.reset();
  const auto wall = std::chrono::duration_cast<std::chrono::milliseconds>(config_.clock->wall_now().time_since_epoch());
  known_machines all;
  for (auto& m : placement_.machines(config_.clock->now()).rows)
    all.rows.push_back({std::move(m.what), wall.count() - m.heard_ms});
  auto told = [me = self_->incarnation(), n = placement_.comings()](caf::error e) {
    caf::anon_send(me, atom::done_v, n, std::move(e));
  };
  const bool posted = rt::post_and_send(
      *config_.pool, [file = config_.machines_file, all = std::move(all)] { return write_known_machines(file, all); },
      [told](expected<void> done) { told(done ? caf::error{} : make_error(done.error())); },
      [told](const std::string& what) { told(make_error(ec::crashed, what)); });
  if (!posted) told(make_error(ec::overloaded, "the pool is full"));
}

} // namespace coppice::actors
