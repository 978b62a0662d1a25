#include "bench/support/bench_main.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/report.hpp"
#include "runtime/supervisor.hpp"

#include <caf/actor_system_config.hpp>
#include <caf/all.hpp>

#include <array>

namespace {

using namespace coppice;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

struct settings {
  bool json = false, small = false;
  std::size_t rounds = 9, messages = 300'000, crashes = 2'000, default_crashes = 100;
};

using ask_atom = caf::atom_constant<caf::atom("ask")>;
using tell_atom = caf::atom_constant<caf::atom("tell")>;
using crash_atom = caf::atom_constant<caf::atom("crash")>;

using echo_actor = caf::typed_actor<caf::replies_to<ask_atom, std::uint64_t>::with<std::uint64_t>,
                                    caf::reacts_to<tell_atom, std::uint64_t>>;

echo_actor::behavior_type plain_echo(echo_actor::pointer) {
  return {[](ask_atom, std::uint64_t x) { return x; }, [](tell_atom, std::uint64_t) {}};
}

class echo {
public:
  using interface = echo_actor;
  static constexpr const char* name = "echo";
  explicit echo(rt::self<interface>*) {}
  interface::behavior_type make_behavior() {
    return {[](ask_atom, std::uint64_t x) { return x; }, [](tell_atom, std::uint64_t) {}};
  }
};

/// How messages are sent: so many plain ones and then a request, with so many requests open at a time.
struct traffic {
  std::string name;
  std::size_t tells, open_max;
};

/// Sends `count` messages to one actor and answers when the last request is answered.
class sender {
public:
  using interface = caf::typed_actor<caf::replies_to<tell_atom, std::uint64_t>::with<std::uint64_t>>;
  static constexpr const char* name = "sender";
  sender(rt::self<interface>* self, echo_actor to, traffic how)
      : self_(self), to_(std::move(to)), how_(std::move(how)) {}
  interface::behavior_type make_behavior() {
    return {[this](tell_atom, std::uint64_t count) -> caf::result<std::uint64_t> {
      left_ = count;
      done_.emplace(self_);
      send();
      return *done_;
    }};
  }

private:
  void send() {
    for (; left_ > 0 && open_ < how_.open_max; ++open_) {
      for (auto n = how_.tells; n > 0 && left_ > 1; --n, --left_)
        self_->send(to_, tell_atom::value, left_);
      self_->call(to_, ask_atom::value, left_--)
          .then(
              [this](std::uint64_t) {
                --open_;
                send();
              },
              [this](const caf::error& e) { done_->deliver(e); });
    }
    if (open_ == 0) done_->deliver(std::uint64_t{0});
  }

  rt::self<interface>* self_;
  echo_actor to_;
  traffic how_;
  std::uint64_t left_ = 0;
  std::size_t open_ = 0;
  std::optional<rt::reply<std::uint64_t>> done_;
};

/// When something happened, told by the actor itself.
struct instants {
  std::atomic<std::int64_t> died{0}, served{0}, delay{0}; ///< in ns
};

std::int64_t now_ns() {
  return clock_type::now().time_since_epoch().count();
}

class mortal {
public:
  using interface = caf::typed_actor<caf::replies_to<ask_atom>::with<bool>, caf::replies_to<crash_atom>::with<bool>>;
  static constexpr const char* name = "mortal";
  mortal(rt::self<interface>*, instants* when) : when_(when) {}
  interface::behavior_type make_behavior() {
    return {[this](ask_atom) {
              when_->served = now_ns();
              return true;
            },
            [this](crash_atom) -> caf::result<bool> {
              when_->died = now_ns();
              throw std::runtime_error("as told");
            }};
  }

private:
  instants* when_;
};

/// The scheduler of coppiced.
struct scheduler_config : caf::actor_system_config {
  scheduler_config() {
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", std::size_t{2});
  }
};

/// Sends the request and waits; whether it was answered without an error.
template <class Answer, class Handle, class... Ts>
bool ask(caf::scoped_actor& me, const Handle& to, Ts&&... xs) {
  bool good = false;
  me->request(to, caf::infinite, std::forward<Ts>(xs)...)
      .receive([&](const Answer&) { good = true; }, [](const caf::error&) {});
  return good;
}

void need(bool good, const char* what) {
  if (!good) throw std::runtime_error(what);
}

/// Messages to one actor through its stable reference, to the same actor without it, and to one that is plain CAF.
class message_race {
public:
  message_race(const settings& s, bench::samples& whole) : s_(s), whole_(whole) {
    echo_ = tree_.child<echo>("echo");
    root_ = tree_.run();
    need(ask<std::uint64_t>(me_, echo_, ask_atom::value, std::uint64_t{0}), "no echo");
    direct_ = caf::actor_cast<echo_actor>(rt::as_ref(caf::actor_cast<caf::strong_actor_ptr>(echo_)).target());
    plain_ = system_.spawn(plain_echo);
  }
  ~message_race() { rt::shut_down_and_wait(system_, root_, 10s); }
  message_race(const message_race&) = delete;
  message_race& operator=(const message_race&) = delete;

  void run(const traffic& how, std::vector<bench::row>& rows) {
    std::array<bench::samples, 3> costs;
    const std::array racers{&echo_, &direct_, &plain_};
    for (std::size_t round = 0; round < s_.rounds; ++round)
      for (std::size_t i = 0; i < racers.size(); ++i) {
        const auto turn = (round + i) % racers.size();
        costs[turn].add(measure(*racers[turn], how));
      }
    const auto count = static_cast<double>(s_.messages);
    auto rate = [&](const bench::samples& c) { return count / bench::median(c.wall_s) / 1000; };
    auto cpu = [&](const bench::samples& c) { return bench::median(c.cpu_s) * 1e9 / count; };
    const auto& [ours, direct, plain] = costs;
    const auto name = "supervision_" + how.name;
    rows.push_back({name + "_rate", rate(ours), "1/ms", rate(plain)});
    rows.push_back({name + "_rate_of_direct", rate(ours), "1/ms", rate(direct)});
    rows.push_back({name + "_cpu", cpu(ours), "ns", cpu(plain)});
    rows.push_back({name + "_cpu_of_direct", cpu(ours), "ns", cpu(direct), bench::at_most(1.5)});
  }

private:
  bench::cost measure(const echo_actor& to, const traffic& how) {
    auto from = rt::spawn<sender>(system_, to, how);
    const auto cpu = bench::own_cpu_s();
    const bench::stopwatch watch;
    need(ask<std::uint64_t>(me_, from, tell_atom::value, std::uint64_t{s_.messages}), "messages were lost");
    auto cost = watch.since(bench::own_cpu_s() - cpu);
    whole_.add(cost);
    me_->send_exit(from, caf::exit_reason::user_shutdown);
    return cost;
  }

  const settings& s_;
  bench::samples& whole_;
  scheduler_config config_;
  caf::actor_system system_{config_};
  caf::scoped_actor me_{system_};
  rt::directory directory_{system_};
  rt::tree tree_{directory_, "/bench"};
  caf::strong_actor_ptr root_;
  echo_actor echo_, direct_, plain_;
};

/// From a crash to the new incarnation's first request, which waits for it.
class crashes {
public:
  /// In microseconds; of `late` the time that the child was to wait is taken off.
  struct times {
    std::vector<double> all, late;
  };

  /// Each of `children` crashes `each` times.
  static times of_children(std::size_t children, std::size_t each, rt::restart_options restarts) {
    scheduler_config config;
    caf::actor_system system{config};
    caf::scoped_actor me{system};
    rt::directory dir{system};
    instants when;
    dir.observe([&](const rt::actor_change& c) {
      if (c.what == rt::actor_change::kind::died) when.delay = c.delay.count();
    });
    rt::supervisor_options options;
    options.restarts = restarts;
    options.restarts.max_restarts = children * each;
    rt::tree tree{dir, "/bench", options};
    std::vector<mortal::interface> all;
    for (std::size_t i = 0; i < children; ++i)
      all.push_back(tree.child<mortal>("mortal-" + std::to_string(i), &when));
    auto root = tree.run();
    times t;
    for (auto& child : all) {
      need(ask<bool>(me, child, ask_atom::value), "a child does not start");
      for (std::size_t i = 0; i < each; ++i) {
        need(!ask<bool>(me, child, crash_atom::value), "a child does not crash");
        need(ask<bool>(me, child, ask_atom::value), "a child does not come back");
        t.all.push_back(static_cast<double>(when.served - when.died) / 1000);
        t.late.push_back(t.all.back() - static_cast<double>(when.delay) / 1000);
      }
    }
    rt::shut_down_and_wait(system, root, 10s);
    return t;
  }

  /// From CAF's bare spawn of the same actor to its first request.
  static std::vector<double> of_spawn(std::size_t count) {
    scheduler_config config;
    caf::actor_system system{config};
    caf::scoped_actor me{system};
    instants when;
    std::vector<double> all;
    for (std::size_t i = 0; i < count; ++i) {
      const auto began = now_ns();
      auto a = rt::spawn<mortal>(system, &when);
      need(ask<bool>(me, a, ask_atom::value), "a spawned actor does not serve");
      all.push_back(static_cast<double>(when.served - began) / 1000);
      me->send_exit(a, caf::exit_reason::user_shutdown);
    }
    return all;
  }
};

std::vector<bench::row> measure(const settings& s) {
  std::vector<bench::row> rows;
  bench::samples whole;
  {
    message_race race{s, whole};
    race.run({"tell", 1'000, 2}, rows);
    race.run({"ask", 0, 100}, rows);
    race.run({"ask_one", 0, 1}, rows);
  }
  rt::restart_options at_once;
  at_once.backoff_first = 0ms;
  at_once.within = 1s;
  const auto spawned = crashes::of_spawn(s.crashes);
  const auto again = crashes::of_children(1, s.crashes, at_once);
  const auto by_default = crashes::of_children(s.default_crashes, 1, {});
  for (auto [name, share] : {std::pair{"p50", 0.5}, {"p99", 0.99}}) {
    const std::string prefix = "supervision_restart_";
    const auto floor = bench::percentile(spawned, share);
    rows.push_back({prefix + name, bench::percentile(again.all, share), "us", floor});
    rows.push_back({prefix + "default_" + name, bench::percentile(by_default.all, share), "us", floor});
    rows.push_back({prefix + "default_late_" + name, bench::percentile(by_default.late, share), "us", floor});
  }
  rows.push_back({"supervision_foreign", bench::median(whole.foreign), "share"});
  return rows;
}

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"What supervision costs: messages to one actor through its stable reference, beside the same actor's "
               "own handle and a plain CAF actor's; and the time from a crash to the first request that the new "
               "incarnation serves, beside CAF's bare spawn of the same actor."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_option("--rounds", s.rounds, "of each kind of message; the median counts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--messages", s.messages, "in a round")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--crashes", s.crashes, "without a wait before the restart, and spawns")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--default-crashes", s.default_crashes, "with the wait of the default settings")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) s = {s.json, true, 1, 2'000, 20, 3};
    bench::print(measure(s), s.json);
    return {};
  });
}
