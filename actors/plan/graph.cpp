#include "actors/plan/graph.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"
#include "store/blob_store.hpp"

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
    stream_(static_cast<std::uint64_t>(config_.clock->now().time_since_epoch().count())) {}

graph_state::interface::behavior_type graph_state::make_behavior() {
  load();
  self_->later(config_.repeat_interval, atom::tick_v);
  return {
    [this](atom::changed_atom, const ledger::lock_state& row) {
      if (!plan_) return;
      plan_->on_told(row);
      hear({row});
    },
    [this](atom::progress_atom, const step_progress& p) {
      auto found = running_.find(p.key);
      if (found == running_.end()) return;
      found->second.phase = p.phase;
      found->second.last_line = p.last_line;
    },
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

void graph_state::load() {
  self_->doing("reading the closure of request " + request_.id.to_string().substr(0, 8));
  loading_ = true;
  transact<ledger::blob_state>(
    self_, peers_.ledger, ledger::stat_blob{request_.body.closure},
    [this](ledger::blob_state& blob) {
      if (!blob.present)
        return self_->send(self_->incarnation(), atom::failed_v,
                           make_error(ec::missing, "the closure " + request_.body.closure.to_string() + " is lost"));
      load(store::closure_key(request_.body.closure, blob.gen));
    },
    [this](const error& e) { load_again_later(e); });
}

/// Only what another try would find the same fails the request.
void graph_state::on_not_loaded(const error& e) {
  switch (e.code) {
    case ec::bad_message:
    case ec::invalid:
    case ec::missing:
    case ec::corrupt:
    case ec::limit_exceeded: break;
    default: return load_again_later(e);
  }
  request_result r;
  r.state = request_state::failed;
  r.reason = "cannot plan the request: " + e.what;
  for (auto& root : request_.body.roots) r.roots.push_back({root.drv, {}, failure::unsupported});
  finish(std::move(r));
}

void graph_state::load_again_later(const error& e) {
  loading_ = false; // repeat() sees to it
  load_again_ = config_.clock->now() + load_delay_;
  load_delay_ = std::min(load_delay_ * 2, config_.retry_max);
  rt::log::warn("GRAPH", "closure not read, tried again id={} error={}", request_.id.to_string(), to_string(e));
}

void graph_state::load(const std::string& key) {
  auto me = self_->incarnation();
  auto work = [blobs = config_.blobs, key, roots = request_.body.roots] {
    return closure_graph::load(*blobs, key, roots);
  };
  bool posted = rt::post_and_send(
    *config_.pool, work,
    [me](expected<std::shared_ptr<const closure_graph>> g) {
      if (g)
        caf::anon_send(me, atom::done_v, std::move(*g));
      else
        caf::anon_send(me, atom::failed_v, make_error(g.error()));
    },
    [me](const std::string& what) { caf::anon_send(me, atom::failed_v, make_error(ec::crashed, what)); });
  if (!posted) load_again_later({ec::overloaded, "the pool is full"});
}

void graph_state::begin(std::shared_ptr<const closure_graph> g) {
  if (result_) return; // cancelled meanwhile
  closure_ = std::move(g);
  if (request_.body.rebuild)
    look_at_roots();
  else
    plan_it(closure_->nodes());
}

void graph_state::look_at_roots() {
  ledger::read_locks read;
  for (auto root : closure_->roots()) read.keys.push_back(closure_->nodes()[root].key);
  transact<ledger::lock_states>(
    self_, peers_.ledger, std::move(read), [this](ledger::lock_states& rows) { compare_roots(rows.rows); },
    [this](const error& e) { load_again_later(e); });
}

// What is there stays as it is: the builds that are compared with it have locks of their own (INV-1, INV-4).
void graph_state::compare_roots(const std::vector<ledger::lock_state>& rows) {
  if (result_ || plan_) return;
  auto nodes = closure_->nodes();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].phase != ledger::phase::realised) continue;
    auto root = closure_->roots()[i];
    nodes[root].key = check_key(rows[i].key, request_.id);
    compare_[root] = rows[i].outputs;
  }
  plan_it(std::move(nodes));
}

void graph_state::plan_it(std::vector<plan_node> nodes) {
  plan_.emplace(std::move(nodes), closure_->roots(),
                plan::options{request_.body.keep_going, request_.number, config_.retry_first, config_.retry_max,
                              config_.fail_unplaceable});
  for (auto& node : plan_->nodes()) lanes_.resize(std::max<std::size_t>(lanes_.size(), node.lane + 1));
  rt::log::info("GRAPH", "request planned id={} derivations={}", request_.id.to_string(), closure_->nodes().size());
  perform(plan_->start());
  say_doing();
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

void graph_state::check_sources(std::vector<std::uint32_t> wanted) {
  std::map<nix::store_path, std::vector<std::uint32_t>> users;
  for (auto node : wanted)
    for (auto& source : closure_->sources(node)) users[source].push_back(node);
  ledger::read_paths read;
  for (auto& [path, nodes] : users) read.paths.push_back(path);
  unchecked_ = std::move(wanted);
  transact<ledger::path_infos>(
    self_, peers_.ledger, std::move(read),
    [this, users](ledger::path_infos& known) mutable {
      unchecked_.reset();
      for (auto& info : known.rows) users.erase(info.path);
      std::map<std::uint32_t, std::string> impossible;
      for (auto& [path, nodes] : users)
        for (auto node : nodes)
          impossible.emplace(node, "its source " + path.to_string() + " is in no store of the farm; submit it again");
      perform(plan_->begin(impossible));
      watch_awaited();
    },
    [this](const error& e) { // the next repeat() asks again
      rt::log::warn("GRAPH", "sources not looked up, tried again id={} error={}", request_.id.to_string(), to_string(e));
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

void graph_state::place(const plan::place& p) {
  const auto node = p.node;
  auto j = closure_->make_job(node);
  j.key = plan_->node(node).key;
  if (auto found = compare_.find(node); found != compare_.end()) j.compare = found->second;
  j.token = p.token;
  j.again = p.again;
  j.priority = request_.body.priority;
  j.critical_path = plan_->critical_path(node);
  j.request = request_.id;
  self_->call(peers_.allocator, atom::place_v, std::move(j), graph_actor{self_->stable()})
    .then([](ledger::done&) {},
          [](caf::error&) {
            // ignored: repeat() places again what is still queued
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
  perform(plan_->on_unplaceable(w.key, w.why));
}

void graph_state::tell(step_event e) {
  auto now = config_.clock->now();
  if (e.state != step_state::queued) unplaceable_.erase(e.key);
  if (e.state == step_state::building || e.state == step_state::partial) {
    auto& r = running_[e.key];
    r = {e.drv, e.key, e.token, e.node, 0, e.state == step_state::partial ? "waiting for the store" : "", ""};
    started_.emplace(e.key, now);
    self_->send(peers_.observatory, atom::follow_v, e.key, graph_actor{self_->stable()});
  } else if (auto began = started_.find(e.key); began != started_.end()) {
    e.duration_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - began->second).count();
    running_.erase(e.key);
    started_.erase(began);
  }
  publish(e);
  e.seq = ++last_seq_;
  events_.push_back(std::move(e));
  if (events_.size() > events_kept_max) events_.pop_front();
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
  running_.clear();
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
  for (auto& [key, r] : running_) self_->send(peers_.observatory, atom::follow_v, key, graph_actor{self_->stable()});
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

bool graph_state::has_news(const poll_request& p) const { return p.after != last_seq_ || result_.has_value(); }

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
  request_progress a;
  a.id = request_.id;
  a.stream = stream_;
  a.state = result_ ? result_->state : request_state::open;
  auto after = p.after > last_seq_ ? 0 : p.after; // numbers of another stream
  auto first = last_seq_ - events_.size();        // seq before the oldest kept
  a.lost = after < first;
  auto skip = after > first ? after - first : 0;
  for (auto i = skip; i < events_.size() && a.events.size() < events_per_poll_max; ++i)
    a.events.push_back(events_[static_cast<std::size_t>(i)]);
  a.next = a.events.empty() ? last_seq_ : a.events.back().seq;
  auto now = config_.clock->now();
  for (auto& [key, r] : running_) {
    a.running.push_back(r);
    if (auto began = started_.find(key); began != started_.end())
      a.running.back().elapsed_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - began->second).count();
  }
  if (plan_) a.counts = plan_->counts();
  if (!result_) a.waits_for = waits_for_;
  if (a.next == last_seq_) a.result = result_;
  else a.state = request_state::open; // the end is told after the last event
  return a;
}

} // namespace coppice::actors
