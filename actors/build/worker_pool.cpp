#include "actors/build/worker_pool.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"
#include "runtime/random.hpp"

namespace coppice::actors {

rt::child_spec worker_pool_state::make_worker(std::string label, rt::child_options options,
                                              const worker_state::config& c, const worker_state::peers& p, job j,
                                              nonce who, std::optional<store::kept_entry> kept) {
  return rt::make_child<worker_state>(std::move(label), options, c, p, std::move(j), who, std::move(kept));
}

worker_pool_state::worker_pool_state(rt::self<interface>* self, config c, worker_state::peers peers,
                                     std::vector<offers_actor> allocators, rt::supervisor_actor workers)
    : self_(self)
    , config_(std::move(c))
    , peers_(std::move(peers))
    , allocators_(std::move(allocators))
    , workers_(std::move(workers))
    , room_(config_.share, config_.reserve, config_.pressure) {
  peers_.pool = self_->stable();
}

worker_pool_state::interface::behavior_type worker_pool_state::make_behavior() {
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) { on_down(down); });
  // after a crash the WORKERs of before are still there: let them say so before their slots are given away
  auto patience = has_workers() ? presence_wait : std::chrono::milliseconds{0};
  self_->later(patience, atom::tick_v);
  measure();
  rt::log::info("WORKER_POOL", "{}", config_.limits_kept);
  return {
      [this](atom::assign_atom, job& j) { return assign(j); },
      [this](atom::prefetch_atom, const prefetch& what) {
        // that cores are busy is why it is fetched ahead: only memory and disk count
        if (fitting()[true].builds > 0) self_->send(peers_.fetcher, atom::prefetch_v, what);
      },
      [this](atom::open_atom, const inhash& key, const nonce& who, bool counts, bool io_bound, const capacity& takes,
             const lock_watcher_actor& worker) {
        on_present(key, {worker, who, counts, io_bound, takes});
      },
      [this](atom::ended_atom, const inhash& key, fence) {
        auto found = slots_.find(key);
        if (found == slots_.end()) return;
        auto ended = found->second;
        ended.counts = false;
        put(key, std::move(ended));
        offer_soon();
      },
      [this](atom::offer_atom) {
        offering_ = false;
        answer_stops();
        if (ready_) offer_slots();
      },
      [this](atom::drain_atom, const drain_node& order) { return drain(order); },
      [this](atom::stop_atom) { return stop(); },
      [this](atom::partials_atom, const get_partials& q) { return list_partials(q); },
      [this](atom::retry_atom, const retry_partial& order) { return retry_partial_now(order.key); },
      [this](atom::drop_atom, const drop_partial& order) { return drop(order); },
      [this](atom::drain_atom, std::uint64_t order, const machine_room& now, const caf::error& e) {
        on_drained(order, now, e);
      },
      [this](atom::partials_atom, std::uint64_t question, partial_outputs& found, const caf::error& e) {
        on_listed(question, found, e);
      },
      [this](atom::poll_atom) { measure(); },
      [this](atom::done_atom, const machine_room& now, const caf::error& e) { on_measured(now, e); },
      [this](atom::stored_atom, const std::shared_ptr<const store::kept_listing>& kept, const caf::error& e) {
        on_kept(kept.get(), e);
      },
      [this](atom::tick_atom) {
        if (!ready_ || !orphans_.empty() || died_building_) read_kept();
        if (ready_) {
          reconcile();
          offer_slots();
        }
        self_->later(config_.offer_interval, atom::tick_v);
      },
  };
}

void worker_pool_state::on_present(const inhash& key, const occupant& says) {
  auto present = slots_.find(key);
  bool fresh = present == slots_.end();
  if (fresh) self_->monitor(says.worker);
  if (!fresh && present->second.who != says.who) return;
  auto o = says;
  if (!fresh) o.token = present->second.token;
  put(key, std::move(o));
}

caf::result<bool> worker_pool_state::assign(job& j) {
  rt::reply<bool> out{self_};
  auto present = slots_.find(j.key);
  if (present != slots_.end() && present->second.counts)
    out.deliver(false); // said twice; a second WORKER's start would be stale anyway
  else if (present != slots_.end())
    out.fail(ec::conflict, "an earlier attempt is being cleared away");
  else if (stopping_)
    out.fail(ec::overloaded, config_.worker.node.value + " " + std::string{stopping_text});
  else if (!ready_)
    out.fail(ec::overloaded, "the workers of before have not said yet whether they are there");
  else if (busy_[j.io_bound] >= (j.io_bound ? config_.io_slots : config_.slots))
    out.fail(ec::overloaded, "no slot is free on " + config_.worker.node.value);
  else if (auto fit = room_.fits(reserved_, reserved_by(config_.share, j.features, j.io_bound)); fit.builds == 0)
    out.fail(ec::overloaded, config_.worker.node.value + " " + fit.short_of);
  else {
    // answered before the next offer goes out: ALLOCATOR takes an offer to count what it has answers for
    out.deliver(true);
    auto who = rt::random_id<nonce>();
    auto told = [this, key = j.key, token = j.token, who](const caf::error& e) {
      if (!e) return;
      rt::log::warn("WORKER_POOL", "worker not started, placed again error={}", to_string(from_caf(e)));
      release_dead(key, token, who, "its worker was not started: " + from_caf(e).what);
    };
    start(std::move(j), who, {}, std::move(told));
  }
  return out;
}

void worker_pool_state::start(job j, const nonce& who, std::optional<store::kept_entry> kept,
                              std::function<void(caf::error)> told) {
  auto key = j.key;
  auto label = std::string(nix::derivation_name(j.drv)) + "." + std::to_string(++births_);
  rt::child_options options;
  options.kind = rt::restart_kind::temporary;
  options.ref.call_timeout = config_.worker_timeout;
  bool resumes = kept.has_value();
  auto its = config_.worker;
  if (!resumes) its.takes = reserved_by(config_.share, j.features, j.io_bound);
  if (its.takes.cores > 0) its.sandbox.cores = its.takes.cores;
  put(key, {{}, who, !resumes, j.io_bound, its.takes, j.token});
  auto order = config_.make(label, options, its, peers_, std::move(j), who, std::move(kept));
  self_->call(workers_, rt::start_child_atom::value, std::move(order))
      .then(
          [this, key, told](const caf::strong_actor_ptr& ref) {
            auto worker = caf::actor_cast<worker_actor>(ref);
            self_->monitor(worker);
            if (auto found = slots_.find(key); found != slots_.end()) {
              found->second.worker = worker;
              if (stopping_) stop(found->second);
            }
            told({});
          },
          [this, key, told](caf::error& e) {
            drop(key);
            offer_soon();
            told(std::move(e));
          });
}

void worker_pool_state::on_down(const caf::down_msg& down) {
  for (auto s = slots_.begin(); s != slots_.end(); ++s) {
    if (!s->second.worker || s->second.worker.address() != down.source) continue;
    auto [key, gone] = *s;
    drop(key);
    if (down.reason && down.reason != caf::exit_reason::normal) {
      rt::log::warn("WORKER_POOL", "worker died key={} reason={}", key.to_string(), rt::describe_reason(down.reason));
      if (gone.counts) {
        release_dead(key, gone.token, gone.who, rt::describe_reason(down.reason));
        died_building_ = true; // it may have kept its outputs and not come to say so
      } else {
        orphans_.emplace(key, gone.who); // its outputs are kept: at the next tick another one goes on (INV-12)
      }
    }
    return offer_soon();
  }
}

// Its token died with it: the row says which one is held by the asker we made it. One that never began is begun on its
// behalf: that counts as a try, or a derivation could take down workers for ever (INV-17).
void worker_pool_state::release_dead(const inhash& key, fence placed, const nonce& who, const std::string& why) {
  transact<ledger::lock_states>(
      self_, peers_.ledger, ledger::read_locks{{key}},
      [this, key, placed, who, why](ledger::lock_states& rows) {
        if (rows.rows.empty()) return;
        auto& row = rows.rows[0];
        if (row.holder.nonce == who) return release(key, row.token, why);
        if (row.phase != ledger::phase::queued || row.token != placed) return;
        transact<ledger::granted>(
            self_, peers_.ledger, ledger::start{key, placed, {config_.session, who}, config_.worker.node},
            [this, key, why](ledger::granted& g) { release(key, g.token, why); },
            [](const error&) {
              // ignored: GRAPH places it again
            });
      },
      [](const error&) {
        // ignored: reconcile() finds it
      });
}

void worker_pool_state::release(const inhash& key, fence token, const std::string& why) {
  self_->call(peers_.locks, atom::release_v, ledger::release{key, token, failure::infra, why, {}})
      .then([](ledger::done&) {},
            [](caf::error&) {
              // ignored: reconcile() finds it
            });
}

// A lock that nobody here answers for at two looks in a row belongs to a WORKER whose end was not heard, or whose start
// was granted after it: nobody else would ever give it back (reliability.md 4.4).
void worker_pool_state::reconcile() {
  transact<ledger::lock_states>(
      self_, peers_.ledger, ledger::held_locks{config_.session, ledger::rows_unlimited},
      [this](ledger::lock_states& held) {
        std::set<std::pair<inhash, fence>> unvouched;
        std::uint64_t released = 0;
        for (auto& row : held.rows) {
          if (row.phase == ledger::phase::queued || orphans_.contains(row.key) || resuming_.contains(row.key)) continue; // a GRAPH's, or seen to
          auto worker = slots_.find(row.key);
          if (worker != slots_.end() && worker->second.who == row.holder.nonce) continue;
          unvouched.emplace(row.key, row.token);
          if (!unvouched_.contains({row.key, row.token})) continue;
          ++released;
          release(row.key, row.token, "no worker answers for it");
        }
        unvouched_ = std::move(unvouched);
        tell_reconciled(config_.events, "releases", released);
      },
      [](const error&) {
        // ignored: the next look tells
      });
}

void worker_pool_state::read_kept() {
  if (reading_) return;
  auto me = self_->incarnation();
  reading_ = rt::post_and_send(
      *config_.worker.pool, [kept = config_.worker.kept] { return kept->list(); },
      [me](expected<store::kept_listing> kept) {
        caf::anon_send(me, atom::stored_v,
                       kept ? std::make_shared<const store::kept_listing>(std::move(*kept)) : nullptr,
                       kept ? caf::error{} : make_error(kept.error()));
      },
      [me](const std::string& what) {
        caf::anon_send(me, atom::stored_v, std::shared_ptr<const store::kept_listing>{}, make_error(ec::crashed, what));
      });
  // one that dies while the journal is read may have come into it too late
  if (!reading_) return;
  resuming_ = std::exchange(orphans_, {});
  died_building_ = false;
}

void worker_pool_state::on_kept(const store::kept_listing* kept, const caf::error& e) {
  reading_ = false;
  auto orphans = std::exchange(resuming_, {});
  if (kept) {
    resume(*kept, std::move(orphans));
  } else {
    orphans_.merge(orphans);
    died_building_ = true;
    rt::log::error("WORKER_POOL", "journal of kept outputs not read error={}", to_string(from_caf(e)));
  }
  if (std::exchange(ready_, true)) return;
  reconcile();
  offer_slots();
}

void worker_pool_state::resume(const store::kept_listing& kept, std::map<inhash, nonce> orphans) {
  for (auto& problem : kept.problems)
    rt::log::error("WORKER_POOL", "kept outputs not resumed problem={}", problem);
  for (auto& entry : kept.entries) {
    job j;
    j.key = entry.key;
    j.token = entry.token;
    j.drv = entry.drv;
    j.aterm = entry.aterm;
    if (slots_.contains(j.key)) continue; // its WORKER is alive
    // the same asker as the WORKER that died, whose lock it takes over
    auto died = orphans.extract(j.key);
    auto who = died.empty() ? rt::random_id<nonce>() : died.mapped();
    rt::log::info("WORKER_POOL", "kept outputs resumed drv={} token={}", entry.drv.to_string(), entry.token.value);
    start(std::move(j), who, entry, [this, key = entry.key, who](const caf::error& e) {
      if (!e) return;
      rt::log::warn("WORKER_POOL", "worker for kept outputs not started, tried again error={}", to_string(from_caf(e)));
      orphans_.emplace(key, who);
    });
  }
  for (auto& [key, who] : orphans)
    release_dead(key, {}, who, "its worker died");
}

void worker_pool_state::offer_slots() {
  offer o{config_.worker.node, config_.born,     config_.slots,
          config_.slots,       config_.systems,  config_.features,
          config_.io_slots,    config_.io_slots, {}, room_.now()};
  const auto computing = busy_[false], waiting = busy_[true];
  o.slots_free -= std::min(computing, o.slots_free);
  o.io_slots_free -= std::min(waiting, o.io_slots_free);
  o.mandatory_features = config_.mandatory_features;
  o.version = config_.version;
  o.busy = computing;
  o.io_busy = waiting;
  o.share = room_.share(reserved_);
  const auto fit = fitting();
  o.slots_free = std::min(o.slots_free, fit[false].builds);
  o.io_slots_free = std::min(o.io_slots_free, fit[true].builds);
  if (fit[true].builds == 0) o.short_of = fit[true].short_of; // that cores are busy is as it should be
  auto me = assignee_actor{self_->stable()};
  for (auto& a : allocators_)
    self_->send(a, atom::offer_v, o, me);
  // what ails it comes first: a long sentence loses its end
  self_->doing((o.short_of.empty() ? "" : "this machine " + o.short_of + "; ") + std::to_string(computing) + " of " +
               std::to_string(config_.slots) + " slots, " + std::to_string(reserved_.cores) + " of " +
               std::to_string(o.share.all.cores) + " cores and " + std::to_string(waiting) + " of " +
               std::to_string(config_.io_slots) + " I/O slots busy; " + config_.limits_kept);
  if (!stopping_ && o.short_of.empty() != short_of_.empty()) {
    if (o.short_of.empty())
      rt::log::info("WORKER_POOL", "there is room for builds again");
    else
      rt::log::warn("WORKER_POOL", "builds wait: this machine {}", o.short_of);
  }
  short_of_ = o.short_of;
}

void worker_pool_state::measure() {
  auto told = [me = self_->incarnation()](machine_room now, caf::error e) {
    caf::anon_send(me, atom::done_v, now, std::move(e));
  };
  const bool posted = rt::post_and_send(
      *config_.worker.watch_pool, [c = config_.disks, mark = config_.drain_mark] { return measure_room(c, mark); },
      [told](expected<machine_room> r) { r ? told(*r, {}) : told({}, make_error(r.error())); },
      [told](const std::string& what) { told({}, make_error(ec::crashed, what)); });
  if (!posted) self_->later(config_.room_interval, atom::poll_v);
}

void worker_pool_state::on_measured(const machine_room& now, const caf::error& e) {
  self_->later(config_.room_interval, atom::poll_v);
  if (e) return rt::log::warn("WORKER_POOL", "room for builds not measured error={}", to_string(from_caf(e)));
  take_measure(now);
}

void worker_pool_state::take_measure(const machine_room& now) {
  const auto count = [this] {
    const auto fit = fitting();
    return std::pair{std::min(fit[false].builds, config_.slots), std::min(fit[true].builds, config_.io_slots)};
  };
  const auto before = count();
  room_.on_measured(now);
  if (ready_ && count() != before) offer_slots();
}

std::array<room::fit, 2> worker_pool_state::fitting() const {
  if (const room::fit none{0, std::string{stopping_text}}; stopping_) return {none, none};
  return {room_.fits(reserved_, reserved_by(config_.share, {}, false)),
          room_.fits(reserved_, reserved_by(config_.share, {}, true))};
}

bool worker_pool_state::has_workers() const {
  for (auto& a : config_.directory->describe())
    if (a.path.starts_with(config_.workers_path + "/")) return true;
  return false;
}

void worker_pool_state::put(const inhash& key, occupant o) {
  drop(key);
  busy_[o.io_bound] += o.counts ? 1 : 0;
  if (o.counts) reserved_ = reserved_ + o.takes;
  slots_.emplace(key, std::move(o));
  tell_busy();
}

void worker_pool_state::drop(const inhash& key) {
  auto found = slots_.find(key);
  if (found == slots_.end()) return;
  busy_[found->second.io_bound] -= found->second.counts ? 1 : 0;
  if (found->second.counts) reserved_ = reserved_ - found->second.takes;
  slots_.erase(found);
  tell_busy();
}

void worker_pool_state::tell_busy() {
  config_.events.gauge([n = busy_[false] + busy_[true]](auto& g) { g.builds_running = n; });
}

void worker_pool_state::offer_soon() {
  if (!std::exchange(offering_, true)) self_->send(self_->incarnation(), atom::offer_v);
}

} // namespace coppice::actors
