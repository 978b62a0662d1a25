#include "actors/care/observatory.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

namespace coppice::actors {

observatory_state::observatory_state(rt::self<interface>* self, config c, ledger_actor ledger)
  : self_(self), config_(std::move(c)), ledger_(std::move(ledger)) {}

observatory_state::interface::behavior_type observatory_state::make_behavior() {
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) {
    auto graph = caf::actor_cast<graph_actor>(caf::actor_cast<caf::strong_actor_ptr>(down.source));
    known_.erase(graph);
    for (auto f = followed_.begin(); f != followed_.end();) {
      bool last = f->second.graphs.erase(graph) > 0 && f->second.graphs.empty();
      f = last ? followed_.erase(f) : std::next(f);
    }
  });
  return {
    [this](atom::progress_atom, const step_progress& p) { on_progress(p); },
    [this](atom::follow_atom, const inhash& key, const graph_actor& graph) {
      if (followed_.size() >= config_.followed_max && !followed_.contains(key)) return;
      auto& f = followed_[key];
      f.graphs.insert(graph);
      if (known_.insert(graph).second) self_->monitor(graph);
      if (!f.last.phase.empty()) self_->send(graph, atom::progress_v, f.last);
    },
    [this](atom::tree_atom, const caller&, const get_tree&) -> caf::result<actor_tree> {
      const auto wall = config_.clock->wall_now().time_since_epoch();
      return actor_tree{config_.node, config_.directory->describe(),
                        std::chrono::duration_cast<std::chrono::milliseconds>(wall).count()};
    },
    [this](atom::kill_atom, const caller& who, const kill_actor& k) -> caf::result<ledger::done> {
      rt::log::warn("OBSERVATORY", "actor killed by an operator path={} crash={} key={}", k.path, k.crash, who.name);
      const auto how = k.crash ? rt::kill_mode::crash : rt::kill_mode::exit;
      for (auto& path : {k.path, "/" + config_.node.value + k.path}) { // the root's name may be left out
        auto births = config_.directory->births(path);
        if (k.restarts && births > *k.restarts + 1) return ledger::done{};
        if (config_.directory->kill(path, how)) return ledger::done{};
      }
      return make_error(ec::not_found, "no actor serves at '" + k.path + "' now; see `coppice-admin tree`");
    },
    [this](atom::attempts_atom, const caller&, ledger::read_attempts& q) { return pass_on<ledger::attempt_rows>(std::move(q)); },
    [this](atom::locks_atom, const caller&, ledger::held_locks& q) { return pass_on<ledger::lock_states>(std::move(q)); },
    [this](atom::durations_atom, const caller&, ledger::read_durations& q) { return pass_on<ledger::durations>(std::move(q)); },
    [this](atom::failures_atom, const caller&, ledger::read_failures& q) { return pass_on<ledger::failure_rows>(std::move(q)); },
    [this](atom::forget_atom, const caller& who, ledger::forget_failures& what) -> caf::result<ledger::done> {
      rt::log::info("OBSERVATORY", "failures forgotten drv={} key={}", what.drv ? what.drv->to_string() : "all", who.name);
      return pass_on<ledger::done>(std::move(what));
    },
    [this](atom::events_atom, const caller&, const follow_events& q) { return follow(q); },
    [this](atom::changed_atom) { self_->later(config_.event_delay, atom::output_v); },
    [this](atom::output_atom) { answer_followers(); },
  };
}

template <class Answer, class Tx>
caf::result<Answer> observatory_state::pass_on(Tx tx) {
  rt::reply<Answer> out{self_};
  transact<Answer>(
    self_, ledger_, std::move(tx), [out](Answer& x) { out.deliver(std::move(x)); },
    [out](const error& e) { out.deliver(make_error(e)); });
  return out;
}

event_page observatory_state::page(const follow_events& q) const {
  auto p = config_.events->read(q);
  p.gauges.actors = config_.directory->size();
  return p;
}

caf::result<event_page> observatory_state::follow(const follow_events& q) {
  if (!config_.events) return make_error(ec::unsupported, "this node keeps no events");
  if (q.wait_ms == 0 || config_.events->has_news(q)) return page(q);
  if (followers_.size() >= event_followers_max)
    return make_error(ec::overloaded, std::to_string(followers_.size()) + " others wait for events");
  auto fixed = q;
  if (q.after == events_from_now) fixed.after = config_.events->read(q).next;
  std::chrono::milliseconds wait{std::min(q.wait_ms, poll_wait_ms_max)};
  rt::reply<event_page> out{self_};
  followers_.push_back({fixed, config_.clock->now() + wait, out});
  self_->later(wait, atom::output_v);
  await_events();
  return out;
}

void observatory_state::await_events() {
  config_.events->wake_once([me = caf::weak_actor_ptr{self_->ctrl()}] {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(me))
      caf::anon_send(caf::actor_cast<observatory_actor>(to), atom::changed_v);
  });
  // what happened since it was looked for wakes nobody
  for (auto& f : followers_)
    if (config_.events->has_news(f.what)) return self_->later(config_.event_delay, atom::output_v);
}

void observatory_state::answer_followers() {
  auto now = config_.clock->now();
  std::erase_if(followers_, [&](const follower& f) {
    if (now < f.due && !config_.events->has_news(f.what)) return false;
    f.out.deliver(page(f.what));
    return true;
  });
  if (!followers_.empty()) await_events();
}

void observatory_state::on_progress(const step_progress& p) {
  if (config_.hub) return self_->send(*config_.hub, atom::progress_v, p);
  auto found = followed_.find(p.key);
  if (found == followed_.end()) {
    if (p.over || followed_.size() >= config_.followed_max) return;
    followed_[p.key].last = p; // whoever follows later sees where it stands
    return;
  }
  for (auto& graph : found->second.graphs) self_->send(graph, atom::progress_v, p);
  if (p.over)
    followed_.erase(found);
  else
    found->second.last = p;
}

} // namespace coppice::actors
