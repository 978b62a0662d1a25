#include "actors/plan/graph.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

#include <algorithm>

namespace coppice::actors {
namespace {

template <class T>
std::vector<std::vector<T>> in_chunks(const std::vector<T>& all, std::size_t size) {
  std::vector<std::vector<T>> chunks;
  for (std::size_t i = 0; i < all.size(); i += size)
    chunks.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(i),
                        all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), i + size)));
  return chunks;
}

} // namespace

nonce graph_nonce(const request_id& id, epoch e) {
  nonce n;
  n.bytes = id.bytes;
  for (std::size_t i = 0; i < 8; ++i) n.bytes[i] ^= static_cast<std::uint8_t>(e.value >> (8 * i));
  return n;
}

inhash check_key(const inhash& key, const request_id& id) {
  auto digest = nix::hash_of(nix::hash_algo::sha256, "check:" + key.to_string() + ":" + id.to_string());
  return {digest.sha256()};
}

graph_state::graph_state(rt::self<interface>* self, config c, peers p, ledger::request_row request, coppice::epoch epoch)
  : self_(self), config_(std::move(c)), peers_(std::move(p)), request_(std::move(request)), epoch_(epoch),
    nonce_(graph_nonce(request_.id, epoch)), load_delay_(config_.retry_first),
    feed_(static_cast<std::uint64_t>(config_.clock->now().time_since_epoch().count())) {}

graph_state::interface::behavior_type graph_state::make_behavior() {
  load();
  self_->later(config_.repeat_interval, atom::tick_v);
  return {
    [this](atom::changed_atom, const ledger::lock_state& row) {
      if (!plan_) return;
      plan_->on_told(row);
      hear({row});
    },
    [this](atom::progress_atom, const step_progress& p) { feed_.on_progress(p); },
    [this](atom::waiting_atom, const waiting& w) { on_waiting(w); },
    [this](atom::poll_atom, poll_request& p) { return on_poll(p); },
    [this](atom::explain_atom, const explain_query& q) -> caf::result<step_answer> { return explain(q); },
    [this](atom::stop_atom) { stop(); },
    [this](atom::tick_atom) {
      repeat();
      self_->later(config_.repeat_interval, atom::tick_v);
    },
    [this](atom::done_atom, std::shared_ptr<const closure_graph>& g) { begin(std::move(g)); },
    [this](atom::failed_atom, const caf::error& e) { on_not_loaded(from_caf(e)); },
    [this](atom::output_atom) {
      waking_ = false;
      answer_polls();
    },
    [this](atom::retry_atom, const inhash& key, fence token) {
      retry_at_.erase(key);
      if (plan_) perform(plan_->on_retry(key, token));
    },
    [this](atom::ended_atom) { self_->quit(); },
  };
}

void graph_state::perform(plan::effects effects) {
  lend lent{{}, request_.body.priority};
  for (auto& e : effects) {
    if (auto* x = std::get_if<plan::ask>(&e))
      ask(std::move(x->keys));
    else if (auto* d = std::get_if<plan::discovered>(&e))
      check_sources(std::move(d->wanted));
    else if (auto* a = std::get_if<plan::acquire>(&e))
      get_ready(a->node);
    else if (auto* p = std::get_if<plan::place>(&e))
      place(*p);
    else if (auto* r = std::get_if<plan::release>(&e))
      release(r->node, r->token);
    else if (auto* s = std::get_if<plan::substitute>(&e))
      substitute(s->node);
    else if (auto* l = std::get_if<plan::retry_later>(&e)) {
      retry_at_.insert_or_assign(l->key, config_.clock->now() + l->delay);
      self_->later(l->delay, atom::retry_v, l->key, l->token);
    }
    else if (auto* w = std::get_if<plan::lend>(&e))
      lent.keys.push_back(w->key);
    else if (auto* t = std::get_if<plan::tell>(&e))
      tell(std::move(t->event));
    else if (auto* o = std::get_if<plan::over>(&e))
      finish(make_result(o->state));
  }
  config_.events.add(std::exchange(news_, {}));
  if (!lent.keys.empty()) self_->send(peers_.allocator, atom::place_v, std::move(lent));
  pump_acquires();
}

void graph_state::say_doing() {
  auto& c = plan_->counts();
  self_->doing("request " + request_.id.to_string().substr(0, 8) + ": " + std::to_string(c.built + c.reused) + " of " +
               std::to_string(c.total) + " there, " + std::to_string(c.building) + " building");
}

void graph_state::get_ready(std::uint32_t node) {
  auto& n = plan_->node(node);
  lanes_[n.lane].ready.emplace(-static_cast<std::int64_t>(plan_->critical_path(node)), node);
  auto e = event_of(event_kind::step_waiting, n.drv, n.key, {});
  e.request = request_.id;
  e.step = step_state::queued;
  news_.push_back(std::move(e));
}

void graph_state::ask(std::vector<inhash> keys) {
  for (auto& chunk : in_chunks(keys, config_.keys_per_read))
    transact<ledger::lock_states>(
      self_, peers_.ledger, ledger::read_locks{chunk},
      [this](ledger::lock_states& rows) { hear(std::move(rows.rows)); },
      [this](const error& e) { // the next repeat() asks for all that is awaited
        rt::log::warn("GRAPH", "rows not read, asked again id={} error={}", request_.id.to_string(), to_string(e));
      });
}

void graph_state::pump_acquires() {
  for (auto& l : lanes_) {
    if (plan_->is_over()) l.ready.clear();
    auto number = static_cast<std::uint32_t>(&l - lanes_.data());
    while (!l.ready.empty() && acquiring_ < config_.acquires_max &&
           l.acquiring + plan_->queued(number) < config_.queued_max) {
      auto node = l.ready.extract(l.ready.begin()).value().second;
      if (plan_->state(node) == step_state::queued) acquire(node, l); // else it came to be meanwhile
    }
  }
}

void graph_state::acquire(std::uint32_t node, lane& in) {
  auto& n = plan_->node(node);
  ++acquiring_;
  ++in.acquiring;
  auto answered = [this, &in] {
    --acquiring_;
    --in.acquiring;
  };
  auto& roots = plan_->roots();
  bool again = request_.body.rebuild && std::find(roots.begin(), roots.end(), node) != roots.end();
  self_->call(peers_.locks, atom::acquire_v, acquire_lock{n.key, n.drv, request_.id, epoch_, nonce_, again}, me())
    .then(
      [this, key = n.key, answered](ledger::answer& a) {
        answered();
        if (auto* g = std::get_if<ledger::granted>(&a.body))
          perform(plan_->on_granted(key, g->token));
        else if (auto* row = std::get_if<ledger::lock_state>(&a.body))
          perform(plan_->on_held(*row));
        else
          perform(plan_->on_acquire_failed(key));
      },
      [this, key = n.key, answered](caf::error& e) {
        answered();
        auto why = from_caf(e);
        if (why.code == ec::not_owner) return stop(); // another coordinator has the request: this one is the past
        rt::log::debug("GRAPH", "lock not acquired, asked again key={} error={}", key.to_string(), to_string(why));
        perform(plan_->on_acquire_failed(key));
      });
}

void graph_state::release(std::uint32_t node, fence token) {
  auto key = plan_->node(node).key;
  self_->send(peers_.allocator, atom::withdraw_v, withdraw{key, token});
  self_->call(peers_.locks, atom::release_v, ledger::release{key, token, failure::cancelled, "no longer wanted"})
    .then([](ledger::done&) {},
          [](caf::error&) {
            // ignored: whoever needs the lock finds it queued, and SESSION's reconciliation frees it
          });
}

void graph_state::on_waiting(const waiting& w) {
  if (w.key.empty()) {
    waits_for_ = w.why;
    return;
  }
  auto& told = unplaceable_[w.key]; // ALLOCATOR repeats it
  if (!plan_ || told == w.why) return;
  told = w.why;
  perform(plan_->on_unplaceable(w.key, w.why, w.offline));
}

void graph_state::tell(step_event e) {
  if (e.state != step_state::queued) unplaceable_.erase(e.key);
  if (e.state == step_state::building || e.state == step_state::partial)
    self_->send(peers_.observatory, atom::follow_v, e.key, graph_actor{self_->stable()});
  publish(feed_.tell(std::move(e), config_.clock->now()));
  wake_polls();
}

void graph_state::publish(const step_event& s) {
  if (s.state == step_state::planned || s.state == step_state::partial) return;
  auto kind = s.state == step_state::queued     ? event_kind::step_waiting
              : s.state == step_state::building ? event_kind::step_started
                                                : event_kind::step_ended;
  auto e = event_of(kind, s.drv, s.key, s.token);
  e.request = request_.id;
  e.node = s.node;
  e.step = s.state;
  e.failure = s.failure;
  e.duration_ms = s.duration_ms;
  e.bytes = s.bytes;
  e.text = s.text.substr(0, event_text_bytes_max);
  news_.push_back(std::move(e));
}

request_result graph_state::make_result(request_state state) const {
  request_result r;
  r.state = state;
  for (auto root : plan_->roots()) {
    root_result one{plan_->node(root).drv, {}, plan_->failure_of(root)};
    if (plan_->state(root) == step_state::built || plan_->state(root) == step_state::reused) one.outputs = plan_->outputs(root);
    r.roots.push_back(std::move(one));
  }
  r.failures = plan_->failures();
  r.built = plan_->built();
  r.reused = plan_->reused();
  return r;
}

void graph_state::finish(request_result result) {
  if (result_) return;
  wanted_result_ = result;
  ledger::finish tx{request_.id, epoch_, std::move(result), {}};
  if (plan_)
    for (auto root : plan_->roots()) tx.roots.push_back(plan_->node(root).key);
  transact<ledger::request_row>(
    self_, peers_.ledger, std::move(tx),
    [this](ledger::request_row& row) {
      if (row.result) settle(*row.result);
    },
    [this](const error& e) {
      if (e.code == ec::not_owner) return self_->quit();
      if (e.code == ec::invalid) throw std::runtime_error("the ledger does not bear the result out: " + e.what);
      rt::log::warn("GRAPH", "result not stored, tried again id={} error={}", request_.id.to_string(), to_string(e));
    });
}

void graph_state::settle(const request_result& result) {
  if (result_) return;
  result_ = result;
  wanted_result_.reset();
  feed_.end();
  rt::log::info("GRAPH", "request ended id={} state={} built={} reused={}", request_.id.to_string(),
                to_string(result.state), result.built, result.reused);
  self_->doing("request " + request_.id.to_string().substr(0, 8) + " " + std::string(to_string(result.state)));
  self_->later(config_.linger, atom::ended_v);
  answer_polls();
}

void graph_state::stop() {
  if (plan_ && !plan_->is_over())
    for (auto& e : plan_->stop())
      if (auto* r = std::get_if<plan::release>(&e)) release(r->node, r->token);
  transact<ledger::request_rows>(
    self_, peers_.ledger, ledger::read_requests{request_.id, 1},
    [this](ledger::request_rows& rows) {
      if (!rows.rows.empty() && rows.rows[0].result)
        settle(*rows.rows[0].result);
      else
        self_->quit(); // owned elsewhere
    },
    [this](const error&) { self_->quit(); });
}

void graph_state::repeat() {
  if (wanted_result_ && !result_) return finish(*wanted_result_);
  if (!plan_ && !loading_ && !result_ && config_.clock->now() >= load_again_) load();
  if (!plan_ || plan_->is_over()) return;
  if (unchecked_) return check_sources(*unchecked_);
  tell_reconciled(config_.events, "changes of locks", plan_->take_lost());
  perform(plan_->repeat());
  for (auto node : std::exchange(unadopted_, {})) substitute(node);
  say_doing();
  watch_awaited();
  for (auto& [key, r] : feed_.running()) self_->send(peers_.observatory, atom::follow_v, key, graph_actor{self_->stable()});
}

void graph_state::watch_awaited() {
  for (auto& chunk : in_chunks(plan_->awaited(), config_.keys_per_read))
    self_->call(peers_.locks, atom::watch_v, chunk, me())
      .then(
        [this](ledger::lock_states& rows) {
          plan_->on_looked(rows.rows);
          hear(std::move(rows.rows));
        },
        [](caf::error&) {
          // ignored: the next repeat() asks again
        });
}

caf::result<request_progress> graph_state::on_poll(poll_request& p) {
  rt::reply<request_progress> out{self_};
  if (p.wait_ms == 0 || has_news(p)) {
    out.deliver(answer_to(p));
    return out;
  }
  std::chrono::milliseconds wait{std::min(p.wait_ms, poll_wait_ms_max)};
  polls_.push_back({p, config_.clock->now() + wait, out});
  self_->later(wait, atom::output_v);
  return out;
}

bool graph_state::has_news(const poll_request& p) const { return feed_.has_news(p.after) || result_.has_value(); }

void graph_state::wake_polls() {
  if (waking_ || polls_.empty()) return;
  waking_ = true;
  self_->later(config_.poll_delay, atom::output_v);
}

void graph_state::answer_polls() {
  auto now = config_.clock->now();
  std::erase_if(polls_, [&](const poll& p) {
    if (!has_news(p.what) && now < p.due) return false;
    p.out.deliver(answer_to(p.what));
    return true;
  });
}

request_progress graph_state::answer_to(const poll_request& p) const {
  auto a = feed_.since(p.after, config_.clock->now());
  a.id = request_.id;
  if (plan_) a.counts = plan_->counts();
  if (!result_) a.waits_for = waits_for_;
  if (result_ && !feed_.has_news(a.next)) { // the end is told after the last event
    a.result = result_;
    a.state = result_->state;
  }
  return a;
}

} // namespace coppice::actors
