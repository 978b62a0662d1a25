#include "actors/build/worker.hpp"

#include "actors/build/executor.hpp"
#include "actors/build/log_keeper.hpp"
#include "actors/build/log_relay.hpp"
#include "actors/build/worker_files.hpp"
#include "runtime/log.hpp"
#include "runtime/random.hpp"
#include "store/files.hpp"

#include <tuple>

namespace coppice::actors {
namespace {

attempt begin_attempt(const job& j, const std::optional<store::kept_entry>& kept) {
  return kept ? attempt{kept->token, kept->outputs} : attempt{j.token, !j.compare.empty()};
}

rt::child_options one_life() {
  rt::child_options o;
  o.kind = rt::restart_kind::temporary;
  return o;
}

/// LOG_RELAY answers when all is written, which may take as long as the disk likes.
rt::child_options log_life() {
  auto o = one_life();
  o.ref.call_timeout = std::chrono::hours{1};
  return o;
}

} // namespace

worker_state::worker_state(rt::self<interface>* self, config c, peers p, job j, nonce who,
                           std::optional<store::kept_entry> kept)
  : self_(self), config_(std::move(c)), peers_(std::move(p)), job_(std::move(j)), who_(who),
    attempt_(begin_attempt(job_, kept)), holds_slot_(!kept) {}

worker_state::~worker_state() {
  // a crash must leave no builder behind (INV-11)
  auto gone = caf::make_error(caf::exit_reason::kill);
  if (executor_) rt::send_exit(caf::actor_cast<caf::strong_actor_ptr>(*executor_), gone);
  if (relay_) rt::send_exit(caf::actor_cast<caf::strong_actor_ptr>(*relay_), gone);
  // and nothing else that nobody would find before the next start
  if (!log_in_hand_ && !dir_ && staging_.empty()) return;
  config_.pool->post([blobs = config_.blobs, log = log_file(),
                      keys = log_in_hand_ ? log_keys() : std::vector<std::string>{}, dir = dir_, staging = staging_] {
    if (!keys.empty()) (void)store_log(*blobs, log, keys); // here and below: what stays is swept at the next start
    if (dir) (void)dir->remove();
    if (!staging.empty()) (void)store::remove_tree(staging);
  });
}

worker_state::interface::behavior_type worker_state::make_behavior() {
  auto parsed = nix::parse_derivation(*job_.aterm, job_.drv);
  if (!parsed) throw std::runtime_error(parsed.error().what); // GRAPH has read it: this cannot be
  drv_ = std::move(*parsed);
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) { on_down(down); });
  self_->send(self_->incarnation(), atom::tick_v);
  // a power cut may bring back an entry that was settled, after its outputs were removed
  perform(keeps_outputs() ? attempt_.begin() : attempt_.on_dropped("what was kept of it is not here any more"));
  return {
    [this](atom::changed_atom, const ledger::lock_state& row) { perform(attempt_.on_row(row)); },
    [this](atom::exited_atom, build_exit& e) { on_exited(std::move(e)); },
    [this](atom::progress_atom, const build_look& l) {
      memory_bytes_ = l.memory_bytes;
      show();
    },
    [this](atom::stop_atom, std::string& why) { perform(attempt_.on_stop(std::move(why))); },
    [this](atom::drop_atom, fence token) { return drop(token); },
    [this](atom::packed_atom, packed_outputs& p) { return on_packed(p); },
    [this](atom::failed_atom, failure kind, std::string& reason) {
      reject(kind, dir_ ? dir_->as_inside(std::move(reason)) : std::move(reason));
    },
    [this](atom::stored_atom, packed_outputs& p) { perform(attempt_.on_stored(std::move(p.outputs))); },
    [this](atom::failed_atom, const caf::error&) { perform(attempt_.on_store_failed()); },
    [this](atom::done_atom, std::uint64_t id, const caf::error& e) {
      auto work = work_.extract(id);
      if (!work.empty()) work.mapped()(from_caf(e));
    },
    [this](atom::progress_atom, const step_progress& p) {
      if (attempt_.at() == attempt::stage::building) report(p.phase.empty() ? "building" : p.phase, p.last_line);
    },
    [this](atom::tick_atom) {
      self_->send(peers_.pool, atom::open_v, job_.key, who_, holds_slot_, job_.io_bound, config_.takes,
                  lock_watcher_actor{self_->stable()});
      if (++ticks_ % config_.ticks_per_look == 0 && attempt_.at() != attempt::stage::over) look_at_row();
      look_at_lease();
      end_building();
      perform(attempt_.on_tick());
      show();
      self_->later(config_.tick, atom::tick_v);
    },
  };
}

void worker_state::on_down(const caf::down_msg& down) {
  auto why = rt::describe_reason(down.reason);
  if (executor_ && down.source == executor_->address()) {
    build_exit e;
    e.failure = failure::infra;
    e.reason = "the executor died: " + why;
    return on_exited(std::move(e));
  }
  if (!down.reason || down.reason == caf::exit_reason::normal) return;
  // STORE_UPLOADER: what it was doing is done again
  uploader_.reset();
  if (attempt_.at() == attempt::stage::packing) reject(failure::infra, "the upload died: " + why);
  if (attempt_.at() == attempt::stage::storing) pack(true);
}

// Also makes a LOCK_MANAGER that was restarted tell of changes again.
void worker_state::look_at_row() {
  self_->call(peers_.locks, atom::watch_v, std::vector<inhash>{job_.key}, lock_watcher_actor{self_->stable()})
    .then([this](ledger::lock_states& rows) {
            for (auto& row : rows.rows) perform(attempt_.on_row(row));
          },
          [](caf::error&) {
            // ignored: the next look tells
          });
}

void worker_state::look_at_lease() {
  if (attempt_.at() != attempt::stage::building) return;
  self_->call(peers_.session, atom::lease_v)
    .then([this](const lease_term& lease) { perform(attempt_.on_lease(lease)); },
          [](caf::error&) {
            // ignored: the next look tells
          });
}

void worker_state::perform(attempt::effects effects) {
  if (effects.empty()) return;
  // a mere extension leaves what the log says of the phase
  const auto at = attempt_.at();
  if (at != attempt::stage::over && (at != reported_ || !std::holds_alternative<attempt::extend>(effects.front())))
    report(attempt::to_string(at));
  reported_ = at;
  for (auto& e : effects) {
    if (std::get_if<attempt::fetch>(&e))
      fetch();
    else if (auto* s = std::get_if<attempt::start>(&e))
      start(s->token);
    else if (std::get_if<attempt::run>(&e))
      run();
    else if (auto* k = std::get_if<attempt::kill>(&e)) {
      killed_ = *k;
      if (executor_) self_->send(*executor_, atom::stop_v, k->why, k->reason);
    } else if (std::get_if<attempt::pack>(&e))
      pack(false);
    else if (auto* keeping = std::get_if<attempt::keep>(&e))
      keep(keeping->outputs);
    else if (std::get_if<attempt::store>(&e)) {
      if (uploader_)
        uploader_->deliver(ledger::done{});
      else
        pack(true);
      uploader_.reset();
    } else if (auto* c = std::get_if<attempt::commit>(&e))
      settle(atom::commit_v, ledger::commit{job_.key, c->token, c->outputs, c->usage});
    else if (auto* p = std::get_if<attempt::partial>(&e)) {
      self_->call(peers_.locks, atom::partial_v, ledger::partial{job_.key, p->token})
        .then([](ledger::done&) {}, [](caf::error&) {
          // ignored: it only tells people why the upload takes long; the lock stays ours
        });
    } else if (auto* f = std::get_if<attempt::fail>(&e))
      settle(atom::fail_v,
             ledger::fail_attempt{job_.key, f->token, f->kind, f->reason, f->log_tail, f->usage, f->missing});
    else if (auto* r = std::get_if<attempt::release>(&e)) {
      rt::log::warn("WORKER", "attempt given up drv={} token={} class={} reason={}", job_.drv.to_string(), r->token.value,
                    coppice::to_string(r->why), r->reason);
      settle(atom::release_v, ledger::release{job_.key, r->token, r->why, r->reason, r->usage});
    } else if (auto* b = std::get_if<attempt::reclaim>(&e))
      reclaim(b->built);
    else if (auto* x = std::get_if<attempt::extend>(&e)) {
      if (executor_) self_->send(*executor_, atom::extend_v, x->until_ms); // else it begins with that
    } else if (std::get_if<attempt::free_slot>(&e)) {
      holds_slot_ = false;
      self_->send(peers_.pool, atom::ended_v, job_.key, attempt_.token());
    } else if (auto* d = std::get_if<attempt::discard>(&e))
      discard(d->committed);
    else if (std::get_if<attempt::end>(&e)) {
      report("over", {}, true);
      self_->send(peers_.locks, atom::unwatch_v, job_.key, lock_watcher_actor{self_->stable()});
    }
  }
}

template <class Atom, class Tx>
void worker_state::settle(Atom verb, Tx tx) {
  self_->call(peers_.locks, verb, std::move(tx))
    .then([this, then = progress()](ledger::done&) {
            if (then == progress()) perform(attempt_.on_settled());
          },
          [this, then = progress()](caf::error& e) {
            if (then != progress()) return;
            auto why = from_caf(e);
            rt::log::warn("WORKER", "not settled drv={} token={} error={}", job_.drv.to_string(), attempt_.token().value,
                          to_string(why));
            perform(attempt_.on_refused(why));
          });
}

void worker_state::fetch() {
  self_->call(peers_.fetcher, atom::fetch_v, *job_.inputs)
    .then(
      [this](fetched& f) {
        if (!f.missing.empty()) return perform(attempt_.on_missing(std::move(f.missing), f.why));
        inputs_ = std::move(f);
        perform(attempt_.on_fetched());
      },
      [this](caf::error& e) { perform(attempt_.on_fetch_failed(from_caf(e))); });
}

void worker_state::start(fence token) {
  self_->call(peers_.locks, atom::start_v, start_attempt{job_.key, token, who_}, lock_watcher_actor{self_->stable()})
    .then([this](const granted_lock& g) { perform(attempt_.on_token(g.token, g.lease)); },
          [this, then = progress()](caf::error& e) {
            if (then == progress()) perform(attempt_.on_refused(from_caf(e)));
          });
}

void worker_state::reclaim(bool built) {
  self_->call(peers_.locks, atom::reclaim_v, reclaim_lock{job_.key, job_.drv, who_, built}, lock_watcher_actor{self_->stable()})
    .then(
      [this, lost = attempt_.token()](const granted_lock& g) {
        if (g.token != lost)
          rt::log::info("WORKER", "lock reclaimed drv={} lost={} token={}", job_.drv.to_string(), lost.value, g.token.value);
        perform(attempt_.on_token(g.token, g.lease));
      },
      [this, then = progress()](caf::error& why) {
        if (then == progress()) perform(attempt_.on_refused(from_caf(why)));
      });
}

void worker_state::run() {
  // content is what a fixed output is about: one that is here, perhaps as the wrong one of another, is not made again
  auto& [output_name, output] = *drv_.outputs.begin();
  if (job_.compare.empty() && drv_.is_fixed_output() && config_.local->query(*output.path)) {
    trees_.emplace(output_name, config_.local->real_path(*output.path));
    return perform(attempt_.on_exited({}, {}));
  }
  begun_ = attempt_.token();
  auto slot = std::make_shared<build_scratch>(*config_.pool);
  const auto group = job_.key.to_string().substr(0, 16) + "-" + std::to_string(begun_.value);
  build_order order{job_.drv, drv_, inputs_.closure, group, log_file()};
  auto work = [slot, order = std::move(order), c = config_] { return prepare_build(c, order, *slot); };
  blocking(std::move(work), [this, slot](const error& e) {
    dir_ = std::exchange(slot->dir, nullptr);
    staging_ = std::exchange(slot->staging, {});
    if (e.code == ec::none) return start_log(dir_);
    if (e.code == ec::unsupported || e.code == ec::invalid) return reject(failure::unsupported, e.what);
    // a host path that the configuration names and the host lacks is nothing another try can mend
    reject(e.code == ec::missing ? failure::unsupported : failure::infra, "cannot set up the sandbox: " + e.what);
  });
}

void worker_state::start_log(std::shared_ptr<build_dir> dir) {
  auto process = config_.processes->reserve();
  log_relay_state::config c;
  c.pool = config_.watch_pool;
  c.processes = config_.processes;
  c.process = process;
  c.file = log_file();
  c.progress = {job_.key, job_.drv, begun_, config_.node, {}, {}, false};
  log_in_hand_ = true;
  rt::start_child<log_relay_state>(self_, peers_.workers, label() + ".log", log_life(), c, worker_actor{self_->stable()})
    .then(
      [this, dir, process](const caf::strong_actor_ptr& ref) {
        relay_ = caf::actor_cast<log_relay_actor>(ref);
        start_executor(dir, process);
      },
      [this](caf::error& e) { reject(failure::infra, "cannot start the log relay: " + from_caf(e).what); });
}

void worker_state::start_executor(std::shared_ptr<build_dir> dir, rt::process_id process) {
  rt::process_limits limits;
  limits.timeout = config_.limits.timeout;
  limits.silence = config_.limits.max_silent;
  limits.log_bytes_max = config_.limits.log_bytes_max;
  executor_state::config c{config_.processes, process, dir->process(limits), dir, job_.drv.to_string(), config_.limits};
  c.spec.grace = config_.limits.kill_grace;
  const auto until = attempt_.lease().until_ms;
  c.spec.watchdog = {config_.jail_program,
                     until == lease_forever ? rt::boot_clock::time_point::max()
                                            : rt::boot_clock::time_point{std::chrono::milliseconds{until}},
                     config_.limits.kill_grace, config_.freeze_max};
  c.pool = config_.watch_pool;
  c.scratch = staging_;
  c.watch = {config_.limits.memory_bytes_max, config_.limits.processes_max,        config_.limits.disk_bytes_max,
             config_.limits.files_max,        config_.limits.reserve.disk_free_min, config_.cgroups->keeps_memory(),
             config_.cgroups->keeps_pids()};
  rt::start_child<executor_state>(self_, peers_.workers, label() + ".exec", one_life(), c,
                                  worker_actor{self_->stable()}, *relay_)
    .then(
      [this](const caf::strong_actor_ptr& ref) {
        executor_ = caf::actor_cast<executor_actor>(ref);
        self_->monitor(*executor_);
        if (killed_) self_->send(*executor_, atom::stop_v, killed_->why, killed_->reason);
      },
      [this](caf::error& e) { reject(failure::infra, "cannot start the executor: " + from_caf(e).what); });
}

void worker_state::on_exited(build_exit e) {
  executor_.reset();
  if (!relay_ || std::exchange(exited_, true)) return; // said once more if the builder ended before its start was told
  if (e.failure != failure::none) scrap();
  self_->call(*relay_, atom::done_v)
    .then([this, e](std::string& tail) { end_log(e, std::move(tail)); },
          [this, e](caf::error&) { end_log(e, {}); }); // the log is lost, the build is not
}

std::filesystem::path worker_state::log_file() const {
  return config_.log_dir / (job_.key.to_string() + "-" + std::to_string(begun_.value) + ".log");
}

std::vector<std::string> worker_state::log_keys() const {
  std::vector<std::string> keys{store::attempt_log_key(job_.key, attempt_.token())};
  if (begun_ != attempt_.token()) keys.push_back(store::attempt_log_key(job_.key, begun_)); // lost, and reclaimed since
  if (job_.compare.empty()) keys.push_back(store::log_key(job_.drv)); // else it stays that of what is registered
  return keys;
}

// The log is in the store before anybody is told how the attempt ended, unless that takes longer than log_wait: no attempt
// waits for a store that is away.
void worker_state::end_log(const build_exit& e, std::string tail) {
  rt::send_exit(caf::actor_cast<caf::strong_actor_ptr>(*relay_), caf::make_error(caf::exit_reason::user_shutdown));
  relay_.reset();
  const bool well = e.failure == failure::none;
  auto made = std::make_shared<found_outputs>(tl::make_unexpected(build_fault{failure::infra, "its outputs were not looked for"}));
  ending_ = std::make_unique<ending>(ending{e, std::move(tail), made, config_.clock->now() + config_.log_wait});
  keep_log();
  blocking(
    [dir = well ? dir_ : nullptr, made]() -> expected<void> {
      if (dir) *made = dir->collect_outputs();
      return {};
    },
    [this](const error&) {
      ending_->collected = true;
      end_building();
    });
}

void worker_state::keep_log() {
  const auto id = ++work_count_;
  work_.emplace(id, [this](const error&) {
    if (ending_) ending_->log_told = true;
    end_building();
  });
  log_keeper_state::config c{config_.pool, config_.blobs, log_file(), log_keys()};
  rt::start_child<log_keeper_state>(self_, peers_.workers, label() + ".log-keeper", one_life(), std::move(c),
                                    worker_actor{self_->stable()}, id)
    .then([this](const caf::strong_actor_ptr&) { log_in_hand_ = false; },
          [this, id](caf::error& e) { // it is put into the store once more when this ends
            rt::log::warn("WORKER", "log not kept drv={} error={}", job_.drv.to_string(), to_string(from_caf(e)));
            self_->send(self_->incarnation(), atom::done_v, id, e);
          });
}

void worker_state::end_building() {
  if (!ending_ || !ending_->collected) return;
  if (!ending_->log_told && config_.clock->now() < ending_->log_waits_until) return;
  auto [exit, tail, made] = std::tuple{ending_->exit, std::move(ending_->tail), std::move(ending_->made)};
  ending_.reset();
  if (exit.failure == failure::none) {
    if (*made)
      trees_ = std::move(**made);
    else
      std::tie(exit.failure, exit.reason) = std::tie(made->error().kind, made->error().reason);
  }
  perform(attempt_.on_exited(exit, tail));
}

void worker_state::show() {
  const auto age = std::chrono::duration_cast<std::chrono::seconds>(config_.clock->now() - phase_since_);
  auto text = std::string(nix::derivation_name(job_.drv)) + ": " + phase_ + ", " + std::to_string(age.count()) + " s";
  if (memory_bytes_ > 0 && attempt_.at() == attempt::stage::building)
    text += ", " + std::to_string(memory_bytes_ / 1'000'000) + " MB";
  self_->doing(std::move(text));
}

void worker_state::report(std::string_view phase, std::string last_line, bool over) {
  if (phase_ != phase) {
    phase_ = phase;
    phase_since_ = config_.clock->now();
    show();
  }
  self_->send(peers_.observatory, atom::progress_v,
              step_progress{job_.key, job_.drv, attempt_.token(), config_.node, std::string(phase), std::move(last_line), over});
}

void worker_state::blocking(std::function<expected<void>()> work, std::function<void(const error&)> done) {
  auto id = ++work_count_;
  work_.emplace(id, std::move(done));
  auto me = self_->incarnation();
  bool posted = rt::post_and_send(
    *config_.pool, std::move(work),
    [me, id](expected<void> r) { caf::anon_send(me, atom::done_v, id, r ? caf::error{} : make_error(r.error())); },
    [me, id](const std::string& what) { caf::anon_send(me, atom::done_v, id, make_error(ec::crashed, what)); });
  if (!posted) self_->send(self_->incarnation(), atom::done_v, id, make_error(ec::overloaded, "the pool is full"));
}

} // namespace coppice::actors
