#include "runtime/ref.hpp"

#include <caf/make_actor.hpp>
#include <caf/sec.hpp>

#include <algorithm>

namespace coppice::rt {

namespace {

/// What a closing mailbox answers: nobody's error, so the request never started.
bool bounced(const caf::mailbox_element& x) {
  return !x.sender && x.content().match_elements<caf::error>() &&
         x.content().get_as<caf::error>(0) == caf::sec::request_receiver_down;
}

} // namespace

ref_actor::ref_actor(caf::actor_config& cfg, std::string path, ref_options options)
    : caf::monitorable_actor(cfg), path_(std::move(path)), options_(options) {}

ref_actor::time_point ref_actor::now() const {
  return home_system().clock().now();
}

void ref_actor::enqueue(caf::mailbox_element_ptr x, caf::execution_unit* eu) {
  if (x->mid.is_response()) return complete(std::move(x), eu);
  caf::strong_actor_ptr target;
  caf::error no;
  const auto at = x->mid.is_request() ? now() : time_point{}; // the clock costs as much as all else here
  {
    std::lock_guard lock{mutex_};
    if (state_ == actor_state::stopped)
      no = make_error(ec::unavailable, path_ + " has ended");
    else if (x->mid.is_request() && in_flight_.size() >= options_.max_in_flight)
      no = make_error(ec::overloaded, path_ + " has " + std::to_string(in_flight_.size()) + " open requests");
    else if (state_ == actor_state::up && !mailbox_closed()) {
      target = target_;
      track(*x, at);
    } else if (held_.size() < options_.max_buffered) {
      held_.push_back({now(), std::move(x)});
      return;
    } else
      no =
          make_error(ec::unavailable, path_ + " is restarting and holds " + std::to_string(held_.size()) + " messages");
  }
  if (!target) return refuse(*x, std::move(no), eu);
  target->enqueue(std::move(x), eu); // never under the lock: a closed mailbox bounces straight back to us
}

void ref_actor::attach(caf::attachable_ptr ptr) {
  caf::error why;
  {
    std::lock_guard lock{mutex_};
    if (state_ != actor_state::stopped) return caf::monitorable_actor::attach(std::move(ptr));
    why = stopped_for_;
  }
  ptr->actor_exited(why, nullptr);
}

caf::strong_actor_ptr ref_actor::rebirth(const factory& make, std::function<void()> on_up) {
  std::uint64_t generation = 0;
  {
    std::unique_lock lock{mutex_};
    if (target_) {
      retire(std::move(lock), actor_state::restarting, make_error(ec::restarted, "replaced"));
      lock = std::unique_lock{mutex_};
    }
    generation = ++generation_;
    if (state_ != actor_state::restarting) state_ = actor_state::starting;
  }
  caf::weak_actor_ptr weak{ctrl()};
  auto if_alive = [weak](auto f) {
    if (auto me = caf::actor_cast<caf::strong_actor_ptr>(weak)) f(as_ref(me));
  };
  birth b;
  b.path = path_;
  b.ref = weak;
  b.doomed = [=] { if_alive([&](ref_actor& r) { r.suspend(generation); }); };
  b.up = [=, on_up = std::move(on_up)](const caf::strong_actor_ptr& target) {
    if_alive([&](ref_actor& r) { r.serve(generation, target); });
    if (on_up) on_up();
  };
  caf::strong_actor_ptr target;
  {
    detail::birth_scope scope{b};
    target = make(home_system());
  }
  {
    std::lock_guard lock{mutex_};
    if (generation == generation_) {
      ++births_;
      bind(target);
      vitals_ = dynamic_cast<instrumented*>(target->get());
      kind_ = static_cast<caf::monitorable_actor*>(target->get())->name();
    }
  }
  // runs in the dying actor's last breath, or right here if it is dead already
  target->get()->attach_functor(
      [=](const caf::error& why) { if_alive([&](ref_actor& r) { r.unbind(generation, why); }); });
  return target;
}

void ref_actor::serve(std::uint64_t generation, const caf::strong_actor_ptr& target) {
  for (;;) { // what was held goes first and in order: newcomers are held until nothing is
    std::deque<held_mail> batch;
    {
      std::lock_guard lock{mutex_};
      if (generation != generation_ || state_ == actor_state::stopped) return;
      if (held_.empty()) {
        bind(target); // rebirth() may not have come back from the factory yet
        state_ = actor_state::up;
        return;
      }
      batch.swap(held_);
      for (auto& mail : batch)
        track(*mail.what, mail.since);
    }
    for (auto& mail : batch)
      target->enqueue(std::move(mail.what), nullptr);
  }
}

void ref_actor::bind(const caf::strong_actor_ptr& target) {
  target_ = target;
  scheduled_ = dynamic_cast<caf::scheduled_actor*>(target->get());
}

// True as soon as the mailbox takes no more mail; an atomic load, safe from any thread.
bool ref_actor::mailbox_closed() const {
  return scheduled_ != nullptr && scheduled_->mailbox().closed();
}

void ref_actor::suspend(std::uint64_t generation) {
  std::lock_guard lock{mutex_};
  if (generation == generation_ && state_ == actor_state::up) state_ = actor_state::restarting;
}

void ref_actor::suspend() {
  std::lock_guard lock{mutex_};
  if (state_ != actor_state::stopped) state_ = actor_state::restarting;
}

void ref_actor::restarts_at(time_point t) {
  std::lock_guard lock{mutex_};
  restart_due_ = t;
}

void ref_actor::unbind(std::uint64_t generation, const caf::error& why) {
  std::unique_lock lock{mutex_};
  if (generation == generation_) retire(std::move(lock), actor_state::restarting, why);
}

void ref_actor::lose(const caf::error& why) {
  retire(std::unique_lock{mutex_}, actor_state::restarting, why);
}

void ref_actor::stop(const caf::error& why) {
  retire(std::unique_lock{mutex_}, actor_state::stopped, why);
}

void ref_actor::retire(std::unique_lock<std::mutex> lock, actor_state next, const caf::error& why) {
  if (state_ == actor_state::stopped) return;
  const bool served = target_ != nullptr;
  state_ = next;
  ++generation_;                                 // whatever the former incarnation still tells is late news
  auto former = std::exchange(target_, nullptr); // released outside the lock
  scheduled_ = nullptr;
  vitals_ = nullptr;
  if (served || !last_exit_) last_exit_ = why;
  if (next == actor_state::stopped) stopped_for_ = why;
  auto calls = std::exchange(in_flight_, {});
  std::deque<held_mail> held;
  caf::attachable_ptr monitors;
  if (next == actor_state::stopped) held.swap(held_);
  if (served || next == actor_state::stopped) {
    std::lock_guard base_lock{mtx_};
    monitors.swap(attachables_head_);
  }
  lock.unlock();
  for (auto& [id, call] : calls)
    answer(call, make_error(ec::restarted, path_ + " ended: " + describe_reason(why)));
  for (auto& mail : held)
    refuse(*mail.what, make_error(ec::unavailable, path_ + " has ended"));
  for (auto i = monitors.get(); i != nullptr; i = i->next.get())
    i->actor_exited(why, nullptr);
}

void ref_actor::track(caf::mailbox_element& x, time_point at) {
  if (!x.mid.is_request() || !x.sender) return;
  const auto id = ++last_call_;
  in_flight_.emplace_hint(in_flight_.end(), id, open_call{std::move(x.sender), x.mid, at});
  x.sender = caf::strong_actor_ptr{ctrl()};
  x.mid = caf::message_id{(x.mid.integer_value() & caf::message_id::category_flag_mask) | id};
}

void ref_actor::complete(caf::mailbox_element_ptr x, caf::execution_unit* eu) {
  open_call call;
  {
    std::lock_guard lock{mutex_};
    auto i = in_flight_.find(x->mid.request_id().integer_value());
    if (i == in_flight_.end()) return; // answered already: restarted, deadline, or a second answer
    call = std::move(i->second);
    in_flight_.erase(i);
  }
  if (bounced(*x)) return answer(call, make_error(ec::unavailable, path_ + " ended before it began"), eu);
  x->mid = call.id.response_id();
  x->sender = caf::strong_actor_ptr{ctrl()};
  call.sender->enqueue(std::move(x), eu);
}

void ref_actor::sweep(time_point at) {
  std::vector<open_call> late;
  std::vector<caf::mailbox_element_ptr> stale;
  {
    std::lock_guard lock{mutex_};
    while (!in_flight_.empty() && at - in_flight_.begin()->second.since > options_.call_timeout) {
      late.push_back(std::move(in_flight_.begin()->second));
      in_flight_.erase(in_flight_.begin());
    }
    while (!held_.empty() && at - held_.front().since > options_.restart_wait) {
      stale.push_back(std::move(held_.front().what));
      held_.pop_front();
    }
  }
  for (auto& call : late)
    answer(call, make_error(ec::deadline, path_ + " gave no answer"));
  for (auto& x : stale)
    refuse(*x, make_error(ec::unavailable, path_ + " is restarting"));
}

actor_status ref_actor::status(time_point at) const {
  auto ms_since = [at](std::int64_t t) { return t == 0 ? 0 : std::max<std::int64_t>(0, (ns(at) - t) / 1'000'000); };
  std::lock_guard lock{mutex_};
  actor_status s;
  s.path = path_;
  s.kind = kind_;
  s.state = state_;
  s.restarts = births_ > 0 ? births_ - 1 : 0;
  s.in_flight = in_flight_.size();
  s.buffered = held_.size();
  if (births_ > 0 && last_exit_) s.last_exit = describe_reason(*last_exit_);
  if (state_ == actor_state::restarting && restart_due_ > at) s.restart_in_ms = (ns(restart_due_) - ns(at)) / 1'000'000;
  if (vitals_ != nullptr) {
    const auto& v = vitals_->counters;
    const std::uint64_t enqueued = v.enqueued;
    s.handled = v.handled;
    s.mailbox = enqueued > s.handled ? enqueued - s.handled : 0;
    s.uptime_ms = ms_since(v.started);
    s.busy_ms = ms_since(v.busy_since);
    s.doing = v.doing();
  }
  return s;
}

std::uint64_t ref_actor::births() const {
  std::lock_guard lock{mutex_};
  return births_;
}

caf::strong_actor_ptr ref_actor::target() const {
  std::lock_guard lock{mutex_};
  return target_;
}

void ref_actor::answer(const open_call& call, caf::error e, caf::execution_unit* eu) {
  call.sender->get()->eq_impl(call.id.response_id(), caf::strong_actor_ptr{ctrl()}, eu, std::move(e));
}

void ref_actor::refuse(const caf::mailbox_element& x, caf::error e, caf::execution_unit* eu) {
  if (x.mid.is_request() && x.sender)
    x.sender->get()->eq_impl(x.mid.response_id(), caf::strong_actor_ptr{ctrl()}, eu, std::move(e));
}

// -- directory ---------------------------------------------------------------

directory::directory(caf::actor_system& system) : shared_(std::make_shared<shared>(system)) {}

caf::strong_actor_ptr directory::declare(const std::string& path, ref_options options) {
  std::unique_lock lock{shared_->mutex};
  auto [i, fresh] = shared_->refs.try_emplace(path);
  if (!fresh) return nullptr;
  caf::actor_config cfg;
  i->second = caf::make_actor<ref_actor, caf::strong_actor_ptr>(shared_->system.next_actor_id(), shared_->system.node(),
                                                                &shared_->system, cfg, path, options);
  return i->second;
}

caf::strong_actor_ptr directory::find(const std::string& path) const {
  std::shared_lock lock{shared_->mutex};
  auto i = shared_->refs.find(path);
  return i == shared_->refs.end() ? nullptr : i->second;
}

void directory::retire(const std::string& path, const caf::error& why) {
  caf::strong_actor_ptr ref;
  {
    std::unique_lock lock{shared_->mutex};
    auto i = shared_->refs.find(path);
    if (i == shared_->refs.end()) return;
    ref = std::move(i->second);
    shared_->refs.erase(i);
  }
  as_ref(ref).stop(why);
}

// References are called without the directory's lock: they answer on this thread, and who is answered may ask us.
std::vector<caf::strong_actor_ptr> directory::all() const {
  std::shared_lock lock{shared_->mutex};
  std::vector<caf::strong_actor_ptr> refs;
  refs.reserve(shared_->refs.size());
  for (auto& [path, ref] : shared_->refs)
    refs.push_back(ref);
  return refs;
}

std::vector<actor_status> directory::describe() const {
  const auto now = shared_->system.clock().now();
  std::vector<actor_status> out;
  for (auto& ref : all())
    out.push_back(as_ref(ref).status(now));
  return out;
}

void directory::sweep() const {
  const auto now = shared_->system.clock().now();
  for (auto& ref : all())
    as_ref(ref).sweep(now);
}

void directory::stop_all(const caf::error& why, const caf::strong_actor_ptr& except) const {
  for (auto& ref : all())
    if (ref != except) as_ref(ref).stop(why);
}

bool directory::kill(const std::string& path, kill_mode how) const {
  auto ref = find(path);
  auto target = ref ? as_ref(ref).target() : nullptr;
  if (!target) return false;
  if (how == kill_mode::exit)
    send_exit(target, caf::exit_reason::kill);
  else
    target->get()->enqueue(caf::make_mailbox_element(nullptr, caf::make_message_id(caf::message_priority::high), {},
                                                     detail::crash_atom::value),
                           nullptr);
  return true;
}

std::uint64_t directory::births(const std::string& path) const {
  auto ref = find(path);
  return ref ? as_ref(ref).births() : 0;
}

std::size_t directory::size() const {
  std::shared_lock lock{shared_->mutex};
  return shared_->refs.size();
}

void directory::observe(std::function<void(const actor_change&)> hear) {
  shared_->observer = std::move(hear);
}

void directory::tell(const actor_change& change) const {
  if (shared_->observer) shared_->observer(change);
}

ref_actor& as_ref(const caf::strong_actor_ptr& p) {
  return *static_cast<ref_actor*>(p->get());
}

} // namespace coppice::rt
