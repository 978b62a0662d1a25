#include "actors/lock/ledger.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

#include <atomic>
#include <deque>
#include <mutex>
#include <thread>

namespace coppice::actors {

namespace {

/// Between two tries to open a ledger that is away; each try has a patience of its own.
constexpr auto reopen_pause = std::chrono::milliseconds{200};

} // namespace

/// The backend and what waits for it. Transactions that arrive while one batch commits share the next (group commit);
/// nobody is answered before run() returned.
class ledger_queue : public std::enable_shared_from_this<ledger_queue> {
public:
  struct request {
    std::uint64_t id;
    ledger::any_transaction body;
  };
  struct batch {
    std::vector<session_id> sessions; ///< in the first one: those that the rows say are open
    std::vector<std::pair<std::uint64_t, expected<ledger::any_answer>>> answers;
    ledger::changed changes;
    std::string broken; ///< the backend failed: nobody knows what of the batch is durable
  };

  ledger_queue(const ledger_state::config& c, std::function<void()> wake)
      : open_(c.open)
      , opened_(c.opened)
      , queue_max_(c.queue_max)
      , batch_max_(c.batch_max)
      , events_(c.events)
      , clock_(*c.clock)
      , executor_(*c.thread)
      , wake_(std::move(wake)) {}

  /// Opens the backend; whatever is posted waits for that.
  bool begin() {
    std::lock_guard guard{mutex_};
    return scheduled_ = executor_.post([me = shared_from_this()] { me->run(); });
  }

  bool post(request r) {
    std::lock_guard guard{mutex_};
    if (queue_.size() >= queue_max_) return false;
    if (!scheduled_ && !executor_.post([me = shared_from_this()] { me->run(); })) return false;
    scheduled_ = true;
    queue_.push_back(std::move(r));
    return true;
  }

  std::vector<batch> take() {
    std::lock_guard guard{mutex_};
    return std::exchange(finished_, {});
  }

  /// Waits for the batch that runs; no other will, and the backend is closed: a successor may open it.
  void close() {
    stop_ = true;
    std::lock_guard running{running_};
    backend_.reset();
  }

private:
  void run() {
    std::lock_guard running{running_};
    if (!stop_ && !backend_) finish(open());
    while (!stop_) {
      std::vector<std::uint64_t> ids;
      std::vector<ledger::any_transaction> bodies;
      {
        std::lock_guard guard{mutex_};
        scheduled_ = !queue_.empty();
        if (!scheduled_) return;
        while (!queue_.empty() && ids.size() < batch_max_) {
          ids.push_back(queue_.front().id);
          bodies.push_back(std::move(queue_.front().body));
          queue_.pop_front();
        }
      }
      finish(perform(ids, bodies));
    }
  }

  void finish(batch done) {
    if (!done.broken.empty()) stop_ = true;
    {
      std::lock_guard guard{mutex_};
      finished_.push_back(std::move(done));
    }
    wake_();
  }

  /// A ledger elsewhere that was there before is waited for: to die of it again and again would end the process, and its
  /// builds with it.
  batch open() {
    batch done;
    while (done.broken.empty() && !backend_ && !stop_) {
      try {
        backend_ = open_();
        done.sessions = backend_->sessions();
        *opened_ = true;
      } catch (const store::ledger_io_error& e) {
        if (e.code() == ec::unavailable && *opened_)
          rt::log::warn("LEDGER", "{}; trying on", e.what());
        else
          done.broken = e.what();
      } catch (const std::exception& e) {
        done.broken = e.what();
      }
      if (done.broken.empty() && !backend_ && !stop_) std::this_thread::sleep_for(reopen_pause);
    }
    return done;
  }

  batch perform(const std::vector<std::uint64_t>& ids, const std::vector<ledger::any_transaction>& bodies) {
    batch done;
    auto wall = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.wall_now().time_since_epoch()).count();
    try {
      auto answers = backend_->run(bodies, wall, done.changes);
      // here and now: LEDGER may die before it hears of this batch, and who watches rows needs no copy
      events_.add(std::exchange(done.changes.events, {}));
      for (std::size_t i = 0; i < ids.size(); ++i) done.answers.emplace_back(ids[i], std::move(answers[i]));
    } catch (const std::exception& e) {
      done.changes = {};
      done.broken = e.what();
    }
    return done;
  }

  std::mutex running_; // held while a batch runs; taken before mutex_
  const std::function<std::unique_ptr<store::ledger_backend>()> open_;
  const std::shared_ptr<std::atomic<bool>> opened_;
  std::unique_ptr<store::ledger_backend> backend_;
  const std::size_t queue_max_, batch_max_;
  const event_port events_;
  const rt::clock& clock_;
  rt::executor& executor_;
  const std::function<void()> wake_;
  std::mutex mutex_;
  std::deque<request> queue_;
  std::vector<batch> finished_;
  bool scheduled_ = false; // a job of the executor will look at the queue
  std::atomic<bool> stop_{false};
};

ledger_state::ledger_state(rt::self<interface>* self, config c, watchers w)
  : self_(self), config_(std::move(c)), watchers_(std::move(w)), leases_(config_.leases) {
  queue_ = std::make_shared<ledger_queue>(config_, [me = self_->incarnation()] { caf::anon_send(me, atom::done_v); });
  if (!queue_->begin()) throw std::runtime_error("the ledger's thread takes no work");
}

ledger_state::~ledger_state() {
  if (queue_) queue_->close();
}

ledger_state::interface::behavior_type ledger_state::make_behavior() {
  self_->later(config_.leases.renew_interval, atom::tick_v);
  return {
    [this](atom::transact_atom, ledger::transaction& t) { return transact(t); },
    [this](atom::watch_atom, const watch_ledger& w, const ledger_watcher_actor& who) { on_watch(w, who); },
    [this](atom::done_atom) { on_finished(); },
    [this](atom::tick_atom) {
      expire_leases();
      members_.forget_silent(config_.clock->now());
      self_->later(config_.leases.renew_interval, atom::tick_v);
    },
  };
}

caf::result<ledger::answer> ledger_state::transact(ledger::transaction& t) {
  rt::reply<ledger::answer> out{self_};
  auto id = ++next_;
  expected<void> heard;
  if (auto* k = std::get_if<ledger::keep_alive>(&t.body)) heard = hear(k->session, k->ttl_ms);
  if (auto* o = std::get_if<ledger::open_session>(&t.body)) heard = hear(o->session, o->ttl_ms);
  if (!heard) {
    out.deliver(make_error(heard.error()));
    return out;
  }
  members_.note(t.body);
  if (queue_->post({id, std::move(t.body)}))
    open_.emplace(id, out);
  else
    out.fail(ec::overloaded, "the ledger has " + std::to_string(config_.queue_max) + " transactions waiting");
  return out;
}

// From now on, not from the answer: a disk that takes long must not end the leases of those who were heard.
expected<void> ledger_state::hear(const session_id& session, std::int64_t ttl_ms) {
  if (const auto ttl = config_.leases.lease_ttl.count(); ttl_ms > ttl)
    return fail(ec::invalid, "the node's lease.ttl, " + std::to_string(ttl_ms) + " ms, is longer than that of the hub, " +
                                 std::to_string(ttl) + " ms: its builds would go on when others begin them");
  if (session != config_.own) leases_.renew(session, config_.clock->now());
  return {};
}

void ledger_state::on_finished() {
  for (auto& batch : queue_->take()) {
    if (!batch.broken.empty()) throw std::runtime_error("ledger: " + batch.broken);
    for (auto& session : batch.sessions) (void)hear(session, 0); // without a ttl nothing is refused
    for (auto& [id, answer] : batch.answers) {
      auto found = open_.find(id);
      if (found == open_.end()) continue;
      if (answer)
        found->second.deliver(ledger::answer{std::move(*answer)});
      else
        found->second.deliver(make_error(answer.error()));
      open_.erase(found);
    }
    auto& changes = batch.changes;
    if (!changes.locks.empty()) self_->send(watchers_.locks, atom::changed_v, changes);
    for (auto& [member, theirs] : members_.share(changes)) self_->send(member, atom::changed_v, std::move(theirs));
    if (changes.outbox) self_->send(watchers_.publisher, atom::changed_v, changes);
    if (!changes.requests.empty()) self_->send(watchers_.graphs, atom::changed_v, changes);
  }
}

// What it held before this LEDGER, or the member's word, was there is read from the rows.
void ledger_state::on_watch(const watch_ledger& w, const ledger_watcher_actor& who) {
  if (!members_.watch(w.session, who, config_.clock->now())) return;
  actors::transact<ledger::lock_states>(
    self_, ledger_actor{self_->stable()}, ledger::held_locks{w.session},
    [this, session = w.session](ledger::lock_states& held) {
      for (auto& row : held.rows) members_.note(session, row.key);
    },
    [](const error&) {
      // ignored: hints only
    });
}

void ledger_state::expire_leases() {
  for (auto& session : leases_.expired(config_.clock->now())) {
    rt::log::info("LEDGER", "lease over session={}", session.to_string());
    auto id = ++next_;
    if (!queue_->post({id, ledger::expire{session}})) leases_.renew(session, config_.clock->now()); // next time
  }
}

} // namespace coppice::actors
