#include "runtime/supervisor.hpp"

#include "runtime/log.hpp"

#include <caf/all.hpp>

#include <map>
#include <set>
#include <stdexcept>

namespace coppice::rt {

namespace {

std::string join(const std::string& path, const std::string& name) {
  return path.ends_with('/') ? path + name : path + "/" + name;
}

bool abnormal(const caf::error& reason) {
  return reason && reason != caf::exit_reason::normal && reason != caf::exit_reason::user_shutdown &&
         !is(reason, ec::shutdown);
}

/// What a supervisor is built from, again in each incarnation.
struct plan {
  std::string path;
  directory dir;
  bool root = false;
  supervisor_options options;
  std::vector<child_spec> children;
};

/// Takes: start_child, stop_child, exits and ends of its children. Sends: exits. Owns: its children.
/// Supervised by: the supervisor above; the root by main.
class supervisor {
public:
  using interface = supervisor_actor;
  static constexpr const char* name = "supervisor";

  supervisor(self<supervisor_actor>* self, std::shared_ptr<const plan> p);
  supervisor(const supervisor&) = delete;
  supervisor& operator=(const supervisor&) = delete;
  ~supervisor();
  interface::behavior_type make_behavior();

private:
  using time_point = caf::actor_clock::time_point;
  using child_id = restart_policy::child_id;
  /// From `kill` to being abandoned.
  static constexpr std::chrono::milliseconds kill_grace{500};
  /// Of the tick by which a death is no longer counted.
  static constexpr std::uint64_t faded_epoch = 0;
  enum class phase { ended, due, starting, up, stopping };
  struct child {
    child_id id;
    child_spec spec;
    bool passing = false; // came at run time: leaves the directory when it ends
    phase at = phase::ended;
    std::uint64_t epoch = 0;     // tells late timers and late news of readiness
    caf::strong_actor_ptr now{}; // while starting, up or stopping
    time_point due{};            // when `at` is due
    bool doomed = false;         // to be stopped when its turn comes
    bool again = false;          // once stopped, it is due
    bool killed = false; // it would not stop; `kill` cannot be refused, but a handler that runs is not interrupted
  };

  child& adopt(child_spec spec, bool passing);
  caf::result<caf::strong_actor_ptr> start_child(child_spec& order);
  caf::result<bool> stop_child(const std::string& child_name);
  void on_down(const caf::down_msg& down);
  void on_up(child_id id, std::uint64_t epoch);
  void on_late(child_id id, std::uint64_t epoch);
  void on_death(child& c, const caf::error& reason);
  void show_deaths();
  void on_stopped(child& c, const caf::error& reason);
  void end_for_good(child& c, const caf::error& reason);
  void doom_followers(const child& of);
  void advance();
  void stop_doomed();
  void start_due();
  void start(child& c);
  void stop(child& c);
  void abandon(child& c, const caf::error& why);
  void tick_at(time_point t);
  void finish(const caf::error& why);
  void end();
  void tell(actor_change::kind what, const child& c, const caf::error& reason = {}, std::chrono::nanoseconds delay = {}) const {
    dir_.tell({what, path_of(c), reason, delay, c.passing});
  }

  child* find(child_id id);
  /// Nothing is to be done about it, until something happens.
  static bool settled(const child& c) { return !c.doomed && (c.at == phase::up || c.at == phase::ended); }
  time_point now() const { return self_->now(); }
  bool dynamic() const { return plan_->options.how == strategy::dynamic; }
  /// The children live and die together, in order.
  bool grouped() const {
    return plan_->options.how == strategy::one_for_all || plan_->options.how == strategy::rest_for_one;
  }
  std::string path_of(const child& c) const { return join(plan_->path, c.spec.name); }

  self<supervisor_actor>* self_;
  std::shared_ptr<const plan> plan_;
  directory dir_;
  restart_policy policy_;
  std::map<child_id, child> children_; // in order of declaration
  std::set<child_id> unsettled_;       // those that advance() must look at: neither at rest nor up for good
  std::map<caf::actor_id, child_id> by_incarnation_;
  child_id last_id_ = 0;
  std::uint64_t tick_epoch_ = 0;
  std::optional<time_point> tick_due_;
  bool cleaning_ = false; // children of a crashed predecessor are still being stopped
  bool ending_ = false;   // the children are being stopped for good
  bool ended_ = false;
  caf::error final_;
};

supervisor::supervisor(self<supervisor_actor>* self, std::shared_ptr<const plan> p)
    : self_(self)
    , plan_(std::move(p))
    , dir_(plan_->dir)
    , policy_(plan_->options.restarts, plan_->options.seed ^ std::hash<std::string>{}(plan_->path)) {}

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

supervisor::child* supervisor::find(child_id id) {
  auto i = children_.find(id);
  return i == children_.end() ? nullptr : &i->second;
}

supervisor::child& supervisor::adopt(child_spec spec, bool passing) {
  const auto id = ++last_id_;
  auto& c = children_.emplace(id, child{id, std::move(spec), passing}).first->second;
  c.due = now();
  unsettled_.insert(id);
  c.now = as_ref(c.spec.ref).target();
  if (!c.now) {
    c.at = phase::due;
    return c;
  }
  // a predecessor's child: two incarnations must not run side by side
  c.at = phase::up;
  c.doomed = c.again = cleaning_ = true;
  by_incarnation_[c.now->id()] = id;
  self_->monitor(c.now);
  return c;
}

caf::result<caf::strong_actor_ptr> supervisor::start_child(child_spec& order) {
  const auto path = join(plan_->path, order.name);
  if (!dynamic()) return make_error(ec::unsupported, plan_->path + " takes no children at run time");
  if (ending_) return make_error(ec::unavailable, plan_->path + " is stopping");
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
    c.again = false;
    if (c.at == phase::due)
      end_for_good(c, make_error(ec::shutdown));
    else if (c.at != phase::stopping)
      c.doomed = true;
    unsettled_.insert(id);
    advance();
    return true;
  }
  return make_error(ec::not_found, plan_->path + " has no such child to stop: " + child_name);
}

// -- news of children ---------------------------------------------------------

void supervisor::on_up(child_id id, std::uint64_t epoch) {
  auto c = find(id);
  if (c == nullptr || c->epoch != epoch || c->at != phase::starting) return;
  c->at = phase::up;
  tell(as_ref(c->spec.ref).births() > 1 ? actor_change::kind::restarted : actor_change::kind::started, *c);
  advance();
}

void supervisor::on_down(const caf::down_msg& down) {
  auto i = by_incarnation_.find(down.source.id());
  if (i == by_incarnation_.end()) return; // an abandoned incarnation
  auto& c = children_.at(i->second);
  by_incarnation_.erase(i);
  unsettled_.insert(c.id);
  c.now = nullptr;
  if (c.at == phase::stopping || c.doomed)
    on_stopped(c, down.reason);
  else
    on_death(c, down.reason);
  advance();
}

void supervisor::on_late(child_id id, std::uint64_t epoch) {
  auto c = find(id);
  if (c == nullptr || c->epoch != epoch) return;
  if (c->at == phase::starting) {
    const auto why = make_error(ec::deadline, "did not start in time");
    abandon(*c, why);
    on_death(*c, why);
  } else if (c->at == phase::stopping && !c->killed) {
    c->killed = true;
    send_exit(c->now, caf::exit_reason::kill);
    self_->later(kill_grace, child_late_atom::value, id, epoch);
  } else if (c->at == phase::stopping) {
    const auto why = make_error(ec::deadline, "did not stop in time");
    abandon(*c, why);
    on_stopped(*c, why);
  }
  advance();
}

void supervisor::on_death(child& c, const caf::error& reason) {
  const auto verdict =
      policy_.step(restart_policy::ended{c.id, c.spec.options.kind, abnormal(reason)}, now().time_since_epoch());
  if (auto restart = std::get_if<restart_policy::restart_after>(&verdict)) {
    log::warn("SUPERVISOR", "actor ended, will be restarted path={} reason=\"{}\" after_ms={}", path_of(c),
              describe_reason(reason), restart->delay.count() / 1'000'000);
    c.at = phase::due;
    c.due = now() + restart->delay;
    tell(actor_change::kind::died, c, reason, restart->delay);
    as_ref(c.spec.ref).restarts_at(c.due);
    doom_followers(c);
    show_deaths();
    self_->later(plan_->options.restarts.within + std::chrono::milliseconds{1}, supervisor_tick_atom::value, faded_epoch);
  } else if (std::holds_alternative<restart_policy::give_up>(verdict)) {
    log::error("SUPERVISOR", "actor ended, too many restarts path={} reason=\"{}\"", path_of(c),
               describe_reason(reason));
    c.at = phase::ended;
    tell(actor_change::kind::given_up, c, reason);
    finish(make_error(ec::too_many_restarts, path_of(c) + ": " + describe_reason(reason)));
  } else {
    if (abnormal(reason)) {
      log::warn("SUPERVISOR", "actor ended path={} reason=\"{}\"", path_of(c), describe_reason(reason));
      tell(actor_change::kind::ended, c, reason);
    }
    end_for_good(c, reason);
  }
}

void supervisor::on_stopped(child& c, const caf::error& reason) {
  c.doomed = false;
  if (!c.again) return end_for_good(c, reason);
  c.at = phase::due;
  as_ref(c.spec.ref).restarts_at(c.due);
  tell(actor_change::kind::died, c, reason);
}

void supervisor::show_deaths() {
  const auto& borne = plan_->options.restarts;
  const auto deaths = policy_.recent_deaths(now().time_since_epoch());
  const auto within = std::chrono::duration_cast<std::chrono::seconds>(borne.within).count();
  self_->doing(deaths == 0 ? std::string{}
                           : "bore " + std::to_string(deaths) + " of " + std::to_string(borne.max_restarts) +
                                 " deaths in " + std::to_string(within) + " s");
}

void supervisor::end_for_good(child& c, const caf::error& reason) {
  c.at = phase::ended;
  if (ending_) return; // end() decides what its name becomes
  if (!c.passing) return as_ref(c.spec.ref).stop(reason);
  policy_.step(restart_policy::removed{c.id}, now().time_since_epoch());
  dir_.retire(path_of(c), reason);
  children_.erase(c.id);
}

void supervisor::doom_followers(const child& of) {
  if (!grouped()) return;
  for (auto& [id, c] : children_) {
    if (id == of.id || (plan_->options.how == strategy::rest_for_one && id < of.id)) continue;
    c.due = std::max(c.due, of.due);
    if (c.at != phase::starting && c.at != phase::up) continue;
    c.doomed = true;
    unsettled_.insert(id);
    c.again = c.spec.options.kind != restart_kind::temporary;
  }
}

// -- what is to be done next --------------------------------------------------

void supervisor::advance() {
  std::erase_if(unsettled_, [this](child_id id) {
    auto c = find(id);
    return c == nullptr || settled(*c);
  });
  stop_doomed();
  bool quiet = true;
  for (auto id : unsettled_) {
    auto& c = children_.at(id);
    quiet = quiet && !c.doomed && c.at != phase::stopping;
  }
  if (quiet) cleaning_ = false;
  if (ending_) return quiet ? end() : void();
  if (quiet || !(grouped() || cleaning_)) start_due();
}

// Last started first and one at a time, but the many of a dynamic supervisor all at once.
void supervisor::stop_doomed() {
  for (auto i = unsettled_.rbegin(); i != unsettled_.rend(); ++i)
    if (children_.at(*i).at == phase::stopping && !dynamic()) return;
  for (auto i = unsettled_.rbegin(); i != unsettled_.rend(); ++i) {
    auto& c = children_.at(*i);
    if (!c.doomed) continue;
    stop(c);
    if (!dynamic()) return;
  }
}

// In order, each when the one before it is ready. In a group also a backoff holds up those that follow: they are due
// no earlier than it (doom_followers).
void supervisor::start_due() {
  const auto t = now();
  std::optional<time_point> next;
  for (auto id : unsettled_) {
    auto& c = children_.at(id);
    if (c.at == phase::due && c.due <= t) start(c);
    if (c.at == phase::starting && !dynamic()) break;
    if (c.at == phase::due) next = std::min(next.value_or(c.due), c.due);
  }
  if (next) tick_at(*next);
}

void supervisor::tick_at(time_point t) {
  if (tick_due_ && *tick_due_ <= t) return;
  tick_due_ = t;
  self_->later(t - now(), supervisor_tick_atom::value, ++tick_epoch_);
}

void supervisor::start(child& c) {
  c.at = phase::starting;
  const auto id = c.id;
  const auto epoch = ++c.epoch;
  policy_.step(restart_policy::started{id}, now().time_since_epoch());
  caf::weak_actor_ptr me{self_->ctrl()};
  c.now = as_ref(c.spec.ref).rebirth(c.spec.make, [me, id, epoch] {
    if (auto to = caf::actor_cast<caf::strong_actor_ptr>(me))
      caf::anon_send(caf::actor_cast<supervisor_actor>(to), child_up_atom::value, id, epoch);
  });
  by_incarnation_[c.now->id()] = id;
  self_->monitor(c.now);
  self_->later(c.spec.options.start_timeout, child_late_atom::value, id, epoch);
}

void supervisor::stop(child& c) {
  c.doomed = c.killed = false;
  c.at = phase::stopping;
  as_ref(c.spec.ref).suspend();
  send_exit(c.now, c.again ? make_error(ec::restarted) : make_error(ec::shutdown));
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
  if (ending_) return;
  ending_ = true;
  final_ = why;
  if (is(why, ec::too_many_restarts)) dir_.tell({actor_change::kind::escalated, plan_->path, why});
  for (auto& [id, c] : children_) {
    c.again = false;
    if (c.at == phase::due) c.at = phase::ended;
    c.doomed = c.at == phase::starting || c.at == phase::up;
    unsettled_.insert(id);
  }
  advance();
}

void supervisor::end() {
  if (std::exchange(ended_, true)) return;
  const bool comes_back = !plan_->root && (is(final_, ec::too_many_restarts) || is(final_, ec::restarted));
  for (auto& [id, c] : children_) {
    if (c.passing)
      dir_.retire(path_of(c), final_);
    else if (comes_back)
      as_ref(c.spec.ref).lose(final_);
    else
      as_ref(c.spec.ref).stop(final_);
  }
  children_.clear();
  self_->quit(final_);
}

} // namespace

// -- tree ----------------------------------------------------------------------

struct tree::impl {
  impl(const directory& dir, std::string path, supervisor_options options)
      : what(std::make_shared<plan>(plan{std::move(path), dir, false, options, {}})) {}
  std::shared_ptr<plan> what;
  caf::strong_actor_ptr ref;
  std::map<std::string, caf::strong_actor_ptr> reserved;
  std::vector<std::unique_ptr<tree>> nodes;

  ref_actor::factory factory() const {
    return [shared = std::shared_ptr<const plan>(what)](caf::actor_system& system) {
      return caf::actor_cast<caf::strong_actor_ptr>(spawn<supervisor>(system, shared));
    };
  }
};

tree::tree(const directory& dir, std::string path, supervisor_options options)
    : impl_(std::make_unique<impl>(dir, std::move(path), options)) {
  impl_->ref = impl_->what->dir.declare(impl_->what->path);
  if (!impl_->ref) throw std::logic_error("two actors are called " + impl_->what->path);
}

tree::~tree() = default;
tree::tree(tree&&) noexcept = default;

const std::string& tree::path() const {
  return impl_->what->path;
}

supervisor_actor tree::handle() const {
  return caf::actor_cast<supervisor_actor>(impl_->ref);
}

child_options tree::node_defaults() {
  child_options o;
  o.grace = std::chrono::minutes{5};
  return o;
}

caf::strong_actor_ptr tree::reserve(const std::string& name, ref_options options) {
  auto path = join(impl_->what->path, name);
  auto ref = impl_->what->dir.declare(path, options);
  if (!ref) throw std::logic_error("two actors are called " + path);
  impl_->reserved[name] = ref;
  return ref;
}

caf::strong_actor_ptr tree::add(child_spec spec) {
  auto i = impl_->reserved.find(spec.name);
  if (i == impl_->reserved.end()) {
    reserve(spec.name, spec.options.ref);
    i = impl_->reserved.find(spec.name);
  }
  spec.ref = i->second;
  impl_->reserved.erase(i);
  impl_->what->children.push_back(spec);
  return spec.ref;
}

tree& tree::node(const std::string& name, supervisor_options options, child_options as_child) {
  auto& sub =
      *impl_->nodes.emplace_back(std::make_unique<tree>(impl_->what->dir, join(impl_->what->path, name), options));
  impl_->what->children.push_back({name, sub.impl_->factory(), as_child, sub.impl_->ref});
  return sub;
}

caf::strong_actor_ptr tree::run(std::function<void(const caf::error&)> ended) {
  impl_->what->root = true;
  auto root = as_ref(impl_->ref).rebirth(impl_->factory(), {});
  root->get()->attach_functor(
      [dir = impl_->what->dir, ref = impl_->ref, ended = std::move(ended)](const caf::error& why) {
        dir.stop_all(why, ref);
        if (ended) ended(why);
        as_ref(ref).stop(why); // last: whoever monitors the root may take down all that `ended` uses
      });
  return impl_->ref;
}

void shut_down(const caf::strong_actor_ptr& root) {
  send_exit(root, make_error(ec::shutdown));
}

bool shut_down_and_wait(caf::actor_system& system, const caf::strong_actor_ptr& root, std::chrono::milliseconds d) {
  caf::scoped_actor me{system};
  me->monitor(root);
  shut_down(root);
  bool down = false;
  me->receive([&](const caf::down_msg&) { down = true; }, caf::after(d) >> [] {});
  return down;
}

} // namespace coppice::rt
