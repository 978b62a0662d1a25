#pragma once

#include "runtime/clock.hpp"
#include "runtime/pool.hpp"
#include "runtime/supervisor.hpp"
#include "tests/support/seed.hpp"

#include <caf/actor_system_config.hpp>
#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

/// A deterministic world for actors: one thread, virtual time, and a seeded choice of who handles the next message.
/// Equal seeds give equal histories.
namespace coppice::test {

using namespace std::chrono_literals;

/// Jobs that the world runs as events of their own, in seeded order.
class deferred_executor final : public rt::executor {
public:
  bool post(std::function<void()> job) override {
    if (jobs_.size() >= capacity) return false;
    jobs_.push_back(std::move(job));
    return true;
  }
  /// Jobs that may wait; lower it to test what happens when a pool is full.
  std::size_t capacity = 1'000'000;
  std::size_t waiting() const { return jobs_.size(); }

private:
  friend class world;
  std::deque<std::function<void()>> jobs_;
};

/// Collects answers: an actor without a mailbox whose address is the sender of the world's requests.
class answer_box final : public caf::monitorable_actor {
public:
  explicit answer_box(caf::actor_config& cfg) : caf::monitorable_actor(cfg) {}
  using caf::monitorable_actor::enqueue;
  void enqueue(caf::mailbox_element_ptr x, caf::execution_unit*) override {
    answers.push_back(x->move_content_to_message());
  }
  const char* name() const override { return "answer-box"; }
  std::vector<caf::message> answers;
};

/// A request under way and what came back.
template <class... Out>
class question {
public:
  using value = std::conditional_t<
      sizeof...(Out) == 0, void,
      std::conditional_t<sizeof...(Out) == 1, std::tuple_element_t<0, std::tuple<Out..., void>>, std::tuple<Out...>>>;
  explicit question(caf::strong_actor_ptr box) : box_(std::move(box)) {}
  /// How many answers came: 1 in a sound world, once it is over.
  std::size_t count() const { return answers().size(); }
  bool answered() const { return count() > 0; }
  /// The first answer; only when answered().
  expected<value> get() const {
    const caf::message& m = answers().at(0);
    if (m.match_elements<caf::error>()) return tl::unexpected(from_caf(m.get_as<caf::error>(0)));
    if constexpr (sizeof...(Out) == 0)
      return {};
    else {
      if (!m.match_elements<Out...>()) throw std::logic_error("an answer of another type: " + caf::to_string(m));
      return unpack(m, std::index_sequence_for<Out...>{});
    }
  }
  /// The error's code, or ec::none.
  ec code() const {
    const caf::message& m = answers().at(0);
    return m.match_elements<caf::error>() ? from_caf(m.get_as<caf::error>(0)).code : ec::none;
  }

private:
  template <std::size_t... I>
  static value unpack(const caf::message& m, std::index_sequence<I...>) {
    return value{m.get_as<Out>(I)...};
  }
  const std::vector<caf::message>& answers() const { return static_cast<answer_box*>(box_->get())->answers; }
  caf::strong_actor_ptr box_;
};

namespace detail {
template <class List>
struct question_of;
template <class... Out>
struct question_of<caf::detail::type_list<Out...>> {
  using type = question<Out...>;
};
} // namespace detail

/// What a request of these arguments to Handle is answered by.
template <class Handle, class... Ts>
using question_to = typename detail::question_of<
    caf::response_type_t<typename Handle::signatures, caf::detail::implicit_conversions_t<std::decay_t<Ts>>...>>::type;

class world {
public:
  /// One that begins so long after others that share its time.
  explicit world(std::uint64_t seed_value = seed_or(1), std::chrono::nanoseconds later = 0ns)
      : seed(seed_value), random(seed_value) {
    scheduler_.clock().current_time += 1h + later; // time 0 means "never" to some
    clock.advance(later);
    started_ = scheduler_.clock().now();
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  /// Stops every tree that run() started and every actor that spawn() made; aborts if one will not end, because the
  /// actor system would wait for it for ever.
  ~world() {
    for (auto& address : roots_)
      rt::shut_down(address);
    drain();
    for (auto& actor : spawned_)
      rt::send_exit(actor, caf::exit_reason::kill);
    roots_.clear();
    spawned_.clear();
    later_.clear();
    drain();
    if (system.registry().running() == 0) return;
    std::fprintf(stderr, "world: %zu actors do not end\n", system.registry().running());
    std::abort();
  }

private:
  struct config : caf::actor_system_config {
    config() { set("scheduler.policy", caf::atom("testing")); }
  };
  config config_; // outlives the system

public:
  const std::uint64_t seed;
  std::mt19937_64 random;
  caf::actor_system system{config_};
  rt::directory directory{system};
  rt::manual_clock clock;     ///< moves with the actors' clock
  deferred_executor executor; ///< stands for the thread pool

  // -- actors ------------------------------------------------------------------

  /// Starts a declared tree; it is stopped with the world. `ended` holds why the root ended, once it has.
  struct root {
    caf::strong_actor_ptr address;
    std::shared_ptr<std::optional<error>> ended = std::make_shared<std::optional<error>>();
  };
  root run(rt::tree& tree) {
    root r;
    r.address = tree.run([ended = r.ended](const caf::error& why) { *ended = from_caf(why); });
    roots_.push_back(r.address);
    return r;
  }
  /// An actor without a supervisor; killed with the world.
  template <class State, class... Ts>
  typename State::interface spawn(Ts&&... xs) {
    auto handle = rt::spawn<State>(system, std::forward<Ts>(xs)...);
    spawned_.push_back(caf::actor_cast<caf::strong_actor_ptr>(handle));
    return handle;
  }
  /// Sends a request without running anything.
  template <class Handle, class... Ts>
  question_to<Handle, Ts...> begin(const Handle& to, Ts&&... xs) {
    caf::actor_config cfg;
    auto box = caf::make_actor<answer_box, caf::strong_actor_ptr>(system.next_actor_id(), system.node(), &system, cfg);
    caf::actor_cast<caf::strong_actor_ptr>(to)->get()->enqueue(
        caf::make_mailbox_element(box, caf::make_message_id(1), {}, caf::make_message(std::forward<Ts>(xs)...)),
        nullptr);
    return question_to<Handle, Ts...>{box};
  }
  /// Sends a request and runs the world until it is answered; throws if that takes more than 10 virtual minutes.
  template <class Handle, class... Ts>
  auto ask(const Handle& to, Ts&&... xs) {
    auto q = begin(to, std::forward<Ts>(xs)...);
    if (!run_until([&] { return q.answered(); }, 10min)) throw std::runtime_error("a request was never answered");
    return q.get();
  }
  /// Sends a message that has no answer.
  template <class Handle, class... Ts>
  void tell(const Handle& to, Ts&&... xs) {
    caf::anon_send(to, std::forward<Ts>(xs)...);
  }
  /// The reason of the next end of `who`, once it has ended.
  template <class Handle>
  std::shared_ptr<std::optional<std::string>> end_of(const Handle& who) {
    auto reason = std::make_shared<std::optional<std::string>>();
    caf::actor_cast<caf::strong_actor_ptr>(who)->get()->attach_functor(
        [reason](const caf::error& why) { *reason = rt::describe_reason(why); });
    return reason;
  }
  /// The state of one path; throws if there is none.
  actor_status status(const std::string& path) const {
    for (auto& s : directory.describe())
      if (s.path == path) return s;
    throw std::out_of_range("no actor is called " + path);
  }

  // -- time --------------------------------------------------------------------

  /// Actors' time now.
  caf::actor_clock::time_point now() { return scheduler_.clock().now(); }
  /// Since the world began.
  std::chrono::nanoseconds elapsed() { return now() - started_; }
  /// Runs `f` as an event of its own at `delay` from now; how networks and processes are faked.
  void after(std::chrono::nanoseconds delay, std::function<void()> f) { later_.emplace(now() + delay, std::move(f)); }

  /// One event: a random actor handles one message, or a random job runs; if there is none, time jumps to the next
  /// timer. False if nothing is left to happen.
  bool step() { return run_one() || jump(caf::actor_clock::time_point::max()); }
  /// Runs what can run without time passing.
  void settle() {
    while (run_one())
      continue;
  }
  /// Runs until `done()`; false if it is not so within `bound` of virtual time.
  template <class Predicate>
  bool run_until(Predicate done, std::chrono::nanoseconds bound = 60s) {
    const auto end = now() + bound;
    while (!done())
      if (!run_one() && !jump(end)) return done();
    return true;
  }
  /// Lets `d` pass and runs all that happens in it.
  void advance(std::chrono::nanoseconds d) {
    const auto end = now() + d;
    while (run_one() || jump(end))
      continue;
    move(end - now());
    settle();
  }

  // -- one of several worlds -------------------------------------------------------

  /// One event that needs no time to pass; false if there is none.
  bool run_one();
  /// Whether there is one.
  bool can_run() const { return !scheduler_.jobs.empty() || !executor.jobs_.empty(); }
  /// When the next timer is due; none if there is none.
  std::optional<caf::actor_clock::time_point> next_due() {
    auto& timers = scheduler_.clock().schedule();
    std::optional<caf::actor_clock::time_point> next;
    if (!timers.empty()) next = timers.begin()->first;
    if (!later_.empty() && (!next || later_.begin()->first < *next)) next = later_.begin()->first;
    return next;
  }
  /// Lets time pass up to `t`, if it is not later already; timers that are due become events.
  void pass(caf::actor_clock::time_point t) {
    if (t > now()) move(t - now());
    while (!later_.empty() && later_.begin()->first <= now()) {
      auto f = std::move(later_.begin()->second);
      later_.erase(later_.begin());
      f();
    }
  }

  // -- kills ---------------------------------------------------------------------

  enum class instant { before, after };
  /// Asked just before and just after an actor of the directory handles a message; true: it is killed there and then.
  /// A message is called by its atom, "start" (its birth), "answer", "exit" or "down".
  std::function<bool(const std::string& path, const std::string& message, instant)> kills;

  /// A hash of everything that happened, to compare runs.
  std::uint64_t hash() const { return hash_; }
  std::uint64_t steps() const { return steps_; }

private:
  void handle_first() {
    auto actor = kills ? dynamic_cast<caf::scheduled_actor*>(scheduler_.jobs.front()) : nullptr;
    const auto path = actor ? path_of(*actor) : std::string{};
    if (path.empty()) {
      scheduler_.try_run_once();
      return;
    }
    const caf::strong_actor_ptr alive{actor->ctrl()};
    const auto message = name_of(actor->peek_at_next_mailbox_element());
    if (kills(path, message, instant::before)) return kill_at_once(*actor);
    scheduler_.try_run_once();
    if (kills(path, message, instant::after)) kill_at_once(*actor);
  }
  /// Nobody else does anything before it is dead.
  void kill_at_once(caf::scheduled_actor& actor) {
    rt::send_exit(caf::strong_actor_ptr{actor.ctrl()}, caf::exit_reason::kill);
    auto& jobs = scheduler_.jobs;
    if (auto i = std::find(jobs.begin(), jobs.end(), static_cast<caf::resumable*>(&actor)); i != jobs.end()) {
      std::rotate(jobs.begin(), i, i + 1);
      scheduler_.try_run_once();
    }
    if (!actor.getf(caf::abstract_actor::is_terminated_flag)) throw std::logic_error("a killed actor lives");
  }
  /// Empty if the actor has no name in the directory.
  const std::string& path_of(caf::scheduled_actor& actor) {
    auto [known, fresh] = paths_.try_emplace(actor.id());
    if (fresh)
      for (auto& s : directory.describe())
        if (auto ref = directory.find(s.path); ref && rt::as_ref(ref).target() == actor.ctrl()) known->second = s.path;
    return known->second;
  }
  static std::string name_of(const caf::mailbox_element* x) {
    if (x == nullptr) return "start";
    if (x->mid.is_response()) return "answer";
    if (x->content().match_elements<caf::exit_msg>()) return "exit";
    if (x->content().match_elements<caf::down_msg>()) return "down";
    return rt::detail::message_kind(*x);
  }
  /// To the next timer that is due at `end` or before.
  bool jump(caf::actor_clock::time_point end) {
    const auto next = next_due();
    if (!next || *next > end) return false;
    move(*next - now());
    pass(now());
    return true;
  }
  void move(std::chrono::nanoseconds d) {
    if (d < 0ns) d = 0ns;
    if (d > 0ns) steps_this_instant_ = 0;
    clock.advance(d);
    scheduler_.advance_time(d); // also fires what is due now
    mix(static_cast<std::uint64_t>(d.count()));
  }
  void mix(std::uint64_t x) { hash_ = (hash_ ^ x) * 0x100000001b3ull; }
  void drain() {
    for (int i = 0; i < 1'000'000 && system.registry().running() > 0; ++i)
      if (!step()) return;
  }

  caf::scheduler::test_coordinator& scheduler_ = dynamic_cast<caf::scheduler::test_coordinator&>(system.scheduler());
  caf::actor_clock::time_point started_;
  std::vector<caf::strong_actor_ptr> roots_, spawned_;
  std::multimap<caf::actor_clock::time_point, std::function<void()>> later_;
  std::map<caf::actor_id, std::string> paths_; // of actors that ran while `kills` was set
  std::uint64_t hash_ = 14695981039346656037ull, steps_ = 0, steps_this_instant_ = 0;
};

inline bool world::run_one() {
  auto& actors = scheduler_.jobs;
  auto& jobs = executor.jobs_;
  const auto choices = actors.size() + jobs.size();
  if (choices == 0) return false;
  if (++steps_this_instant_ > 1'000'000)
    throw std::runtime_error("time stands still: actors only talk to each other");
  ++steps_;
  const auto pick = random() % choices;
  if (pick < actors.size()) {
    const auto i = actors.begin() + static_cast<std::ptrdiff_t>(pick);
    std::rotate(actors.begin(), i, i + 1);
    if (auto actor = dynamic_cast<caf::abstract_actor*>(actors.front())) mix(actor->id());
    handle_first();
  } else {
    const auto i = jobs.begin() + static_cast<std::ptrdiff_t>(pick - actors.size());
    auto job = std::move(*i);
    jobs.erase(i);
    mix(0);
    job();
  }
  return true;
}

} // namespace coppice::test
