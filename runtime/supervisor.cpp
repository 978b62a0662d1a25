#include "runtime/log.hpp"
#include "runtime/supervisor_plan.hpp"

#include <caf/all.hpp>

#include <map>

namespace coppice::rt {

namespace {

bool abnormal(const caf::error& reason) {
  return reason && reason != caf::exit_reason::normal && reason != caf::exit_reason::user_shutdown &&
         !is(reason, ec::shutdown);
}

/// Takes: start_child, stop_child, exits and ends of its children. Sends: exits. Owns: its children.
/// Supervised by: the supervisor above; the root by main.
class supervisor {
public:
  using interface = supervisor_actor;
  static constexpr const char* name = "supervisor";

  supervisor(self<supervisor_actor>* self, std::shared_ptr<const supervisor_plan> plan);
  supervisor(const supervisor&) = delete;
  supervisor& operator=(const supervisor&) = delete;
  ~supervisor();
  interface::behavior_type make_behavior();

private:
  using time_point = caf::actor_clock::time_point;
  using child_id = child_group::child_id;
  using fate = child_group::fate;
  /// From `kill` to being abandoned.
  static constexpr std::chrono::milliseconds kill_grace{500};
  /// Of the tick by which a death is no longer counted.
  static constexpr std::uint64_t faded_epoch = 0;
  struct child {
    child_id id;
    child_spec spec;
    bool passing = false;        // came at run time: leaves the directory when it ends
    std::uint64_t epoch = 0;     // tells late timers and late news of readiness
    caf::strong_actor_ptr now{}; // while it runs
  };

  void adopt(child_spec spec, bool passing);
  caf::result<caf::strong_actor_ptr> start_child(child_spec& order);
  caf::result<bool> stop_child(const std::string& child_name);
  void on_down(const caf::down_msg& down);
  void on_up(child_id id, std::uint64_t epoch);
  void on_late(child_id id, std::uint64_t epoch);
  void on_end(child& c, const caf::error& reason);
  void on_death(child& c, const caf::error& reason, std::chrono::nanoseconds delay);
  void show_deaths();
  void end_for_good(child& c, const caf::error& reason);
  void advance();
  void start(child& c);
  void stop(child& c, bool again);
  void abandon(child& c, const caf::error& why);
  void tick_at(time_point t);
  void finish(const caf::error& why);
  void end();
  void tell(actor_change::kind what, const child& c, const caf::error& reason = {},
            std::chrono::nanoseconds delay = {}) const {
    dir_.tell({what, path_of(c), reason, delay, c.passing});
  }

  /// The child, if this is news of what it does now.
  child* find(child_id id, std::uint64_t epoch);
  time_point now() const { return self_->now(); }
  /// The same as the group counts it.
  child_group::time group_now() const { return now().time_since_epoch(); }
  std::string path_of(const child& c) const { return plan_->path_of(c.spec.name); }

  self<supervisor_actor>* self_;
  std::shared_ptr<const supervisor_plan> plan_;
  directory dir_;
  child_group group_;
  std::map<child_id, child> children_;
  std::map<caf::actor_id, child_id> by_incarnation_;
  std::uint64_t tick_epoch_ = faded_epoch;
  std::optional<time_point> tick_due_;
  bool ended_ = false;
  caf::error final_;
};

supervisor::supervisor(self<supervisor_actor>* self, std::shared_ptr<const supervisor_plan> plan)
    : self_(self)
    , plan_(std::move(plan))
    , dir_(plan_->dir)
    , group_(plan_->options.how, plan_->options.restarts, plan_->options.seed ^ std::hash<std::string>{}(plan_->path)) {
}

// Children are left only when the supervisor itself crashed or was killed; a successor waits for their end.
supervisor::~supervisor() {
  for (auto& [id, c] : children_) {
    if (c.now) send_exit(c.now, caf::exit_reason::kill);
    if (c.passing) dir_.retire(path_of(c), make_error(ec::restarted, "its supervisor ended"));
  }
}

supervisor::interface::behavior_type supervisor::make_behavior() {
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) { on_down(down); });
  self_->set_exit_handler([this](caf::scheduled_actor*, caf::exit_msg& e) {
    finish(abnormal(e.reason) ? e.reason : make_error(ec::shutdown));
    advance();
  });
  for (auto& spec : plan_->children)
    adopt(spec, false);
  if (plan_->root) self_->later(directory::sweep_period, sweep_atom::value);
  advance();
  return {
      [this](start_child_atom, child_spec& order) { return start_child(order); },
      [this](stop_child_atom, const std::string& child_name) { return stop_child(child_name); },
      [this](supervisor_tick_atom, std::uint64_t epoch) {
        if (epoch == faded_epoch) return show_deaths();
        if (epoch != tick_epoch_) return;
        tick_due_.reset();
        advance();
      },
      [this](child_up_atom, child_id id, std::uint64_t epoch) { on_up(id, epoch); },
      [this](child_late_atom, child_id id, std::uint64_t epoch) { on_late(id, epoch); },
      [this](sweep_atom) {
        dir_.sweep();
        self_->later(directory::sweep_period, sweep_atom::value);
      },
  };
}

supervisor::child* supervisor::find(child_id id, std::uint64_t epoch) {
  auto i = children_.find(id);
  return i == children_.end() || i->second.epoch != epoch ? nullptr : &i->second;
}

void supervisor::adopt(child_spec spec, bool passing) {
  auto predecessors = as_ref(spec.ref).target(); // two incarnations must not run side by side
  const auto id = group_.add(spec.options.kind, predecessors != nullptr, group_now(), spec.options.own_restarts_max);
  auto& c = children_.emplace(id, child{id, std::move(spec), passing}).first->second;
  c.now = std::move(predecessors);
  if (!c.now) return;
  by_incarnation_[c.now->id()] = id;
  self_->monitor(c.now);
}

caf::result<caf::strong_actor_ptr> supervisor::start_child(child_spec& order) {
  const auto path = plan_->path_of(order.name);
  if (plan_->options.how != strategy::dynamic)
    return make_error(ec::unsupported, plan_->path + " takes no children at run time");
  if (group_.finishing()) return make_error(ec::unavailable, plan_->path + " is stopping");
  if (order.name.empty() || order.name.find('/') != std::string::npos)
    return make_error(ec::invalid, "'" + order.name + "' is not a name for an actor");
  if (children_.size() >= plan_->options.max_children)
    return make_error(ec::overloaded, plan_->path + " has " + std::to_string(children_.size()) + " children");
  order.ref = dir_.declare(path, order.options.ref);
  if (!order.ref) return make_error(ec::conflict, path + " exists");
  auto ref = order.ref;
  adopt(std::move(order), true);
  advance();
  return ref;
}

caf::result<bool> supervisor::stop_child(const std::string& child_name) {
  for (auto& [id, c] : children_) {
    if (c.spec.name != child_name || !c.passing) continue;
    if (group_.dismiss(id)) end_for_good(c, make_error(ec::shutdown));
    advance();
    return true;
  }
  return make_error(ec::not_found, plan_->path + " has no such child to stop: " + child_name);
}

// -- news of children ---------------------------------------------------------

void supervisor::on_up(child_id id, std::uint64_t epoch) {
  auto c = find(id, epoch);
  if (c == nullptr || !group_.up(id)) return;
  tell(as_ref(c->spec.ref).births() > 1 ? actor_change::kind::restarted : actor_change::kind::started, *c);
  advance();
}

void supervisor::on_down(const caf::down_msg& down) {
  auto i = by_incarnation_.find(down.source.id());
  if (i == by_incarnation_.end()) return; // an abandoned incarnation
  auto& c = children_.at(i->second);
  by_incarnation_.erase(i);
  c.now = nullptr;
  on_end(c, down.reason);
  advance();
}

void supervisor::on_late(child_id id, std::uint64_t epoch) {
  using patience = child_group::patience;
  auto c = find(id, epoch);
  if (c == nullptr) return;
  const auto p = group_.late(id);
  if (p == patience::left) return;
  if (p == patience::kill) {
    send_exit(c->now, caf::exit_reason::kill);
    self_->later(kill_grace, child_late_atom::value, id, epoch);
    return;
  }
  const auto why = make_error(ec::deadline, p == patience::no_start ? "did not start in time" : "did not stop in time");
  abandon(*c, why);
  on_end(*c, why);
  advance();
}

void supervisor::on_end(child& c, const caf::error& reason) {
  const auto at = group_now();
  const auto verdict = group_.ended(c.id, abnormal(reason), at);
  switch (verdict.what) {
  case fate::restarts:
    as_ref(c.spec.ref).restarts_at(time_point{verdict.due});
    return on_death(c, reason, verdict.due - at);
  case fate::rejoins:
    as_ref(c.spec.ref).restarts_at(time_point{verdict.due});
    return tell(actor_change::kind::died, c, reason);
  case fate::stays_ended:
    if (abnormal(reason)) {
      log::warn("SUPERVISOR", "actor ended path={} reason=\"{}\"", path_of(c), describe_reason(reason));
      tell(actor_change::kind::ended, c, reason);
    }
    return end_for_good(c, reason);
  case fate::stopped: return end_for_good(c, reason);
  case fate::spent:
  case fate::gives_up:
    log::error("SUPERVISOR", "actor ended, too many restarts path={} reason=\"{}\"", path_of(c),
               describe_reason(reason));
    tell(actor_change::kind::given_up, c, reason);
    const auto why = make_error(ec::too_many_restarts, path_of(c) + ": " + describe_reason(reason));
    if (verdict.what == fate::spent) return end_for_good(c, why);
    finish(why);
  }
}

void supervisor::on_death(child& c, const caf::error& reason, std::chrono::nanoseconds delay) {
  log::warn("SUPERVISOR", "actor ended, will be restarted path={} reason=\"{}\" after_ms={}", path_of(c),
            describe_reason(reason), delay.count() / 1'000'000);
  tell(actor_change::kind::died, c, reason, delay);
  show_deaths();
  self_->later(plan_->options.restarts.within + std::chrono::milliseconds{1}, supervisor_tick_atom::value, faded_epoch);
}

void supervisor::show_deaths() {
  const auto& borne = plan_->options.restarts;
  const auto deaths = group_.recent_deaths(group_now());
  const auto within = std::chrono::duration_cast<std::chrono::seconds>(borne.within).count();
  self_->doing(deaths == 0 ? std::string{}
                           : "bore " + std::to_string(deaths) + " of " + std::to_string(borne.max_restarts) +
                                 " deaths in " + std::to_string(within) + " s");
}

void supervisor::end_for_good(child& c, const caf::error& reason) {
  if (group_.finishing()) return; // end() decides what its name becomes
  if (!c.passing) return as_ref(c.spec.ref).stop(reason);
  group_.remove(c.id, group_now());
  dir_.retire(path_of(c), reason);
  children_.erase(c.id);
}

// -- what is to be done next --------------------------------------------------

void supervisor::advance() {
  const auto orders = group_.next(group_now());
  for (auto [id, again] : orders.stop)
    stop(children_.at(id), again);
  for (auto id : orders.start)
    start(children_.at(id));
  if (orders.wake) tick_at(time_point{*orders.wake});
  if (orders.over) end();
}

void supervisor::tick_at(time_point t) {
  if (tick_due_ && *tick_due_ <= t) return;
  tick_due_ = t;
  self_->later(t - now(), supervisor_tick_atom::value, ++tick_epoch_);
}

void supervisor::start(child& c) {
  const auto id = c.id;
  const auto epoch = ++c.epoch;
  caf::weak_actor_ptr me{self_->ctrl()};
  c.now = as_ref(c.spec.ref).rebirth(c.spec.make, [me, id, epoch] {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(me))
      caf::anon_send(caf::actor_cast<supervisor_actor>(to), child_up_atom::value, id, epoch);
  });
  by_incarnation_[c.now->id()] = id;
  self_->monitor(c.now);
  self_->later(c.spec.options.start_timeout, child_late_atom::value, id, epoch);
}

void supervisor::stop(child& c, bool again) {
  as_ref(c.spec.ref).suspend();
  send_exit(c.now, again ? make_error(ec::restarted) : make_error(ec::shutdown));
  self_->later(c.spec.options.grace, child_late_atom::value, c.id, ++c.epoch);
}

// A handler that never returns can't be ended inside a process: callers go on without it.
void supervisor::abandon(child& c, const caf::error& why) {
  log::error("SUPERVISOR", "actor abandoned path={} reason=\"{}\"", path_of(c), describe_reason(why));
  by_incarnation_.erase(c.now->id());
  send_exit(c.now, caf::exit_reason::kill);
  c.now = nullptr;
  as_ref(c.spec.ref).lose(why);
}

void supervisor::finish(const caf::error& why) {
  if (final_) return;
  final_ = why;
  if (is(why, ec::too_many_restarts)) dir_.tell({actor_change::kind::escalated, plan_->path, why});
  group_.finish();
}

void supervisor::end() {
  if (std::exchange(ended_, true)) return;
  const bool comes_back = !plan_->root && (is(final_, ec::too_many_restarts) || is(final_, ec::restarted));
  for (auto& [id, c] : children_) {
    if (c.passing) // who monitors it must not take the deaths of others for its own
      dir_.retire(path_of(c), comes_back ? make_error(ec::restarted, "its supervisor ended") : final_);
    else if (comes_back)
      as_ref(c.spec.ref).lose(final_);
    else
      as_ref(c.spec.ref).stop(final_);
  }
  children_.clear();
  self_->quit(final_);
}

} // namespace

ref_actor::factory make_supervisor(std::shared_ptr<const supervisor_plan> plan) {
  return [plan = std::move(plan)](caf::actor_system& system) {
    return caf::actor_cast<caf::strong_actor_ptr>(spawn<supervisor>(system, plan));
  };
}

} // namespace coppice::rt
