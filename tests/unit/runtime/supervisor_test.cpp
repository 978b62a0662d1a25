#include "puppet.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <latch>
#include <map>
#include <thread>

using namespace coppice;
using namespace coppice::test;
using namespace std::chrono_literals;
using lines = std::vector<std::string>;

namespace {

struct family {
  diary d;
  world w;
  rt::tree tree;
  std::vector<puppet_actor> kids;

  explicit family(rt::supervisor_options o, rt::child_options of_b = {}) : tree(w.directory, "/t", o) {
    kids.push_back(tree.child<puppet>("a", std::string("a"), &d));
    kids.push_back(tree.child_with<puppet>("b", of_b, std::string("b"), &d));
    kids.push_back(tree.child<puppet>("c", std::string("c"), &d));
  }
  world::root run() {
    auto root = w.run(tree);
    w.settle();
    return root;
  }
};

struct threaded_config : caf::actor_system_config {
  threaded_config() {
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", std::size_t{2});
  }
};

rt::child_options of_kind(rt::restart_kind k) {
  rt::child_options o;
  o.kind = k;
  return o;
}

class stuck {
public:
  using interface = caf::typed_actor<caf::reacts_to<ping_atom>, caf::replies_to<note_atom>::with<bool>>;
  static constexpr const char* name = "stuck";
  stuck(rt::self<interface>*, std::latch* entered, std::latch* release) : entered_(entered), release_(release) {}
  interface::behavior_type make_behavior() {
    return {[this](ping_atom) {
              entered_->count_down();
              release_->wait();
            },
            [](note_atom) { return true; }};
  }

private:
  std::latch* entered_;
  std::latch* release_;
};

class slow {
public:
  using interface = caf::typed_actor<caf::replies_to<note_atom>::with<bool>>;
  static constexpr const char* name = "slow";
  slow(rt::self<interface>*, std::atomic<int>* births, std::latch* release) {
    if (++*births == 1) release->wait();
  }
  interface::behavior_type make_behavior() {
    return {[](note_atom) { return true; }};
  }
};

class echo {
public:
  using interface = caf::typed_actor<caf::replies_to<ping_atom, std::uint64_t>::with<std::uint64_t>>;
  static constexpr const char* name = "echo";
  explicit echo(rt::self<interface>*) {}
  interface::behavior_type make_behavior() {
    return {[](ping_atom, std::uint64_t x) { return x; }};
  }
};

} // namespace

TEST_CASE("children start in the order of declaration and stop in reverse") {
  family f{calm_options()};
  auto root = f.run();
  CHECK(f.d.take() == lines{"+a", "+b", "+c"});
  rt::shut_down(root.address);
  f.w.settle();
  CHECK(f.d.take() == lines{"-c", "-b", "-a"});
  REQUIRE(root.ended->has_value());
  CHECK((*root.ended)->code == ec::shutdown);
  CHECK(f.w.status("/t/a").state == actor_state::stopped);
  auto late = f.w.begin(f.kids[0], ping_atom::value);
  REQUIRE(late.answered());
  CHECK(late.code() == ec::unavailable);
}

TEST_CASE("one_for_one restarts only the one that died") {
  family f{calm_options()};
  f.run();
  f.d.take();
  f.w.ask(f.kids[1], crash_atom::value);
  f.w.advance(1s);
  CHECK(f.d.take() == lines{"-b", "+b"});
}

TEST_CASE("rest_for_one restarts the one that died and those after it") {
  family f{calm_options(rt::strategy::rest_for_one)};
  f.run();
  f.d.take();
  f.w.ask(f.kids[1], crash_atom::value);
  f.w.advance(1s);
  CHECK(f.d.take() == lines{"-b", "-c", "+b", "+c"});
}

TEST_CASE("one_for_all restarts all, stopped in reverse and started in order") {
  family f{calm_options(rt::strategy::one_for_all)};
  f.run();
  f.d.take();
  f.w.ask(f.kids[1], crash_atom::value);
  f.w.advance(1s);
  CHECK(f.d.take() == lines{"-b", "-c", "-a", "+a", "+b", "+c"});
}

TEST_CASE("in a group a child that cannot start holds up those after it") {
  family f{calm_options(rt::strategy::rest_for_one)};
  f.run();
  f.d.take();
  f.d.fail_to_start = true;
  f.w.ask(f.kids[0], crash_atom::value);
  f.w.advance(150ms);
  CHECK(f.d.take() == lines{"-a", "-c", "-b"});
  f.d.fail_to_start = false;
  f.w.advance(10s);
  CHECK(f.d.take() == lines{"+a", "+b", "+c"});
}

TEST_CASE("a temporary child is never restarted") {
  family f{calm_options(), of_kind(rt::restart_kind::temporary)};
  f.run();
  f.w.ask(f.kids[1], crash_atom::value);
  f.w.advance(10s);
  CHECK(f.w.status("/t/b").state == actor_state::stopped);
  CHECK(f.w.begin(f.kids[1], ping_atom::value).code() == ec::unavailable);
}

TEST_CASE("a temporary child stopped with its group is not started again with it") {
  family f{calm_options(rt::strategy::one_for_all), of_kind(rt::restart_kind::temporary)};
  f.run();
  f.d.take();
  f.w.ask(f.kids[0], crash_atom::value);
  f.w.advance(10s);
  CHECK(f.d.take() == lines{"-a", "-c", "-b", "+a", "+c"});
  CHECK(f.w.status("/t/b").state == actor_state::stopped);
}

TEST_CASE("a transient child is not restarted after a normal end, but after a crash it is") {
  family f{calm_options(), of_kind(rt::restart_kind::transient)};
  f.run();
  f.w.ask(f.kids[1], crash_atom::value);
  CHECK(f.w.ask(f.kids[1], ping_atom::value) == 1u);
  f.w.tell(f.kids[1], quit_atom::value);
  f.w.advance(10s);
  CHECK(f.w.status("/t/b").state == actor_state::stopped);
}

TEST_CASE("too many restarts escalate to the parent, which restarts the subtree behind the same handles") {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  auto inner = calm_options();
  inner.restarts.max_restarts = 2;
  auto& node = tree.node("n", inner);
  auto a = node.child<puppet>("a", std::string("a"), &d);
  auto b = node.child<puppet>("b", std::string("b"), &d);
  auto root = w.run(tree);
  for (int i = 0; i < 3; ++i)
    w.ask(a, crash_atom::value);
  w.settle(); // b may have been asked to stop, but not yet know
  CHECK(w.ask(b, ping_atom::value) == 1u);
  CHECK(w.ask(a, ping_atom::value) == 1u);
  CHECK(w.status("/t/n").restarts == 1);
  CHECK(w.status("/t/n").last_exit == "too_many_restarts: /t/n/a: crashed: in 'crash': as told");
  CHECK(!root.ended->has_value());
}

TEST_CASE("a child with a number of restarts of its own ends for good when they are spent, and costs nobody else any") {
  auto o = calm_options();
  o.restarts.max_restarts = 1;
  rt::child_options own;
  own.own_restarts_max = 3;
  family f{o, own};
  f.run();
  for (int i = 0; i < 3; ++i) {
    f.w.ask(f.kids[1], crash_atom::value);
    CHECK(f.w.ask(f.kids[1], ping_atom::value) == 1u);
  }
  CHECK(f.w.status("/t").doing.empty());
  f.w.ask(f.kids[1], crash_atom::value);
  f.w.advance(60s);
  CHECK(f.w.status("/t/b").state == actor_state::stopped);
  CHECK(*f.w.end_of(f.kids[1]) == "too_many_restarts: /t/b: crashed: in 'crash': as told");
  CHECK(f.w.begin(f.kids[1], ping_atom::value).code() == ec::unavailable);
  CHECK(f.w.ask(f.kids[0], ping_atom::value) == 1u);
  f.w.ask(f.kids[0], crash_atom::value); // what the supervisor itself bears
  CHECK(f.w.ask(f.kids[0], ping_atom::value) == 1u);
}

TEST_CASE("whoever observes hears what becomes of each actor, up to the escalation") {
  using kind = rt::actor_change::kind;
  std::map<std::string, std::vector<kind>> heard; // of different actors in any order
  diary d;
  world w;
  w.directory.observe([&](const rt::actor_change& c) { heard[c.path].push_back(c.what); });
  rt::tree tree{w.directory, "/t", calm_options()};
  auto inner = calm_options();
  inner.restarts.max_restarts = 1;
  auto& node = tree.node("n", inner);
  auto a = node.child<puppet>("a", std::string("a"), &d);
  auto root = w.run(tree);
  w.settle();
  using changes = std::vector<kind>;
  CHECK(heard["/t/n"] == changes{kind::started});
  CHECK(heard["/t/n/a"] == changes{kind::started});
  heard.clear();
  w.ask(a, crash_atom::value);
  w.advance(1s);
  CHECK(heard["/t/n/a"] == changes{kind::died, kind::restarted});
  CHECK(heard.size() == 1);
  heard.clear();
  w.ask(a, crash_atom::value);
  w.advance(1s);
  CHECK(heard["/t/n/a"] == changes{kind::given_up, kind::restarted});
  CHECK(heard["/t/n"] == changes{kind::escalated, kind::died, kind::restarted});
  heard.clear();
  rt::shut_down(root.address);
  w.settle();
  CHECK(heard.empty()); // an orderly end is no news
}

TEST_CASE("a supervisor shows the deaths that it bore until they no longer count, and when a child is started again") {
  auto options = calm_options();
  options.restarts.max_restarts = 3;
  options.restarts.within = 10s;
  family f{options};
  f.run();
  f.d.fail_to_start = true;
  f.w.ask(f.kids[1], crash_atom::value);
  f.w.advance(150ms); // died again 100 ms later, and waits 200 ms now
  CHECK(f.w.status("/t").doing == "bore 2 of 3 deaths in 10 s");
  auto waiting = f.w.status("/t/b");
  CHECK(waiting.state == actor_state::restarting);
  CHECK(waiting.restart_in_ms == 150);
  CHECK(waiting.last_exit == "crashed: cannot start");
  f.d.fail_to_start = false;
  f.w.advance(1s);
  CHECK(f.w.status("/t/b").state == actor_state::up);
  CHECK(f.w.status("/t/b").restart_in_ms == 0);
  f.w.advance(10s);
  CHECK(f.w.status("/t").doing.empty());
}

TEST_CASE("restarts multiply through the levels until the root gives up, and then every call fails at once") {
  diary d;
  world w;
  auto o = calm_options();
  o.restarts.max_restarts = 1;
  rt::tree tree{w.directory, "/t", o};
  auto& node = tree.node("n", o);
  auto a = node.child<puppet>("a", std::string("a"), &d);
  auto bystander = tree.child<puppet>("b", std::string("b"), &d);
  auto root = w.run(tree);
  int crashes = 0;
  while (!root.ended->has_value() && crashes < 100)
    crashes += w.ask(a, crash_atom::value).error().code == ec::crashed;
  w.settle();
  CHECK(crashes == 4);
  REQUIRE(root.ended->has_value());
  CHECK((*root.ended)->code == ec::too_many_restarts);
  CHECK(w.begin(a, ping_atom::value).code() == ec::unavailable);
  CHECK(w.begin(bystander, ping_atom::value).code() == ec::unavailable);
  for (auto& s : w.directory.describe())
    CHECK(s.state == actor_state::stopped);
}

TEST_CASE("a root that is killed is seen by main like one that gives up") {
  family f{calm_options()};
  auto root = f.run();
  REQUIRE(f.w.directory.kill("/t"));
  f.w.settle();
  CHECK(root.ended->has_value());
  CHECK(f.w.system.registry().running() == 0);
}

TEST_CASE("a supervisor that is killed leaves no child behind, and its successor runs none beside an old one") {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  auto& node = tree.node("n", calm_options());
  auto a = node.child<puppet>("a", std::string("a"), &d);
  auto b = node.child<puppet>("b", std::string("b"), &d);
  w.run(tree);
  w.settle();
  d.take();
  w.directory.kill("/t/n", rt::kill_mode::crash);
  w.settle();
  CHECK(w.ask(a, ping_atom::value) == 1u);
  CHECK(w.ask(b, ping_atom::value) == 1u);
  auto seen = d.take();
  REQUIRE(seen.size() == 4);
  CHECK(lines(seen.begin() + 2, seen.end()) == lines{"+a", "+b"});
}

TEST_CASE("a child that will not stop is killed when its grace is over") {
  rt::child_options o;
  o.grace = 2s;
  family f{calm_options(), o};
  f.d.refuse_to_stop = true; // all of them; only b has a short grace
  auto root = f.run();
  f.d.refuse_to_stop = false;
  auto q = f.w.begin(f.kids[1], keep_atom::value);
  f.w.settle();
  const auto then = f.w.elapsed();
  rt::shut_down(root.address);
  f.w.run_until([&] { return root.ended->has_value(); });
  CHECK(f.w.elapsed() - then == 5s + 2s + 5s);
  REQUIRE(q.count() == 1);
  CHECK(q.code() == ec::restarted);
}

TEST_CASE("while a child is being stopped its mail waits for the next incarnation") {
  family f{calm_options(rt::strategy::rest_for_one)};
  f.d.refuse_to_stop = true;
  f.run();
  f.d.take();
  f.d.refuse_to_stop = false;
  f.w.ask(f.kids[1], crash_atom::value);
  f.w.advance(4s); // c's grace is 5 s
  CHECK(f.d.take() == lines{"-b"});
  f.w.begin(f.kids[2], note_atom::value, "mail");
  f.w.advance(10s);
  CHECK(f.d.take() == lines{"-c", "+b", "+c", "mail"});
}

TEST_CASE("a killed supervisor's successor starts no child beside a predecessor's that still runs") {
  threaded_config cfg;
  cfg.set("scheduler.max-threads", std::size_t{3});
  std::latch entered{1}, release{1};
  caf::actor_system system{cfg};
  rt::directory dir{system};
  rt::tree tree{dir, "/t", calm_options()};
  auto& node = tree.node("n", calm_options());
  rt::child_options o;
  o.grace = 500ms;
  auto a = node.child_with<stuck>("a", o, &entered, &release);
  auto root = tree.run();
  caf::anon_send(a, ping_atom::value);
  entered.wait();
  const auto then = std::chrono::steady_clock::now();
  REQUIRE(dir.kill("/t/n", rt::kill_mode::crash));
  caf::scoped_actor self{system};
  bool served = false;
  while (!served) {
    self->request(a, caf::infinite, note_atom::value).receive([&](bool b) { served = b; }, [](caf::error&) {});
    if (!served) std::this_thread::sleep_for(5ms);
  }
  CHECK(std::chrono::steady_clock::now() - then >= 600ms); // backoff and grace
  release.count_down();
  CHECK(rt::shut_down_and_wait(system, root, 10s));
}

TEST_CASE("a handler that never returns does not hold up its siblings or the shutdown") {
  threaded_config cfg;
  std::latch entered{1}, release{1};
  caf::actor_system system{cfg};
  rt::directory dir{system};
  rt::tree tree{dir, "/t", calm_options()};
  rt::child_options o;
  o.grace = 50ms;
  auto a = tree.child_with<stuck>("a", o, &entered, &release);
  auto root = tree.run();
  caf::anon_send(a, ping_atom::value);
  entered.wait();
  bool busy = false;
  for (auto& s : dir.describe())
    busy = busy || (s.path == "/t/a" && s.mailbox == 1);
  CHECK(busy);
  caf::scoped_actor self{system};
  ec code = ec::none;
  auto pending = self->request(a, caf::infinite, note_atom::value);
  CHECK(rt::shut_down_and_wait(system, root, 10s));
  pending.receive([](bool) {}, [&](caf::error& e) { code = from_caf(e).code; });
  CHECK(code == ec::restarted);
  release.count_down();
}

TEST_CASE("a constructor that takes too long is a death, and the next incarnation serves the waiting call") {
  threaded_config cfg;
  std::latch release{1};
  std::atomic<int> births{0};
  caf::actor_system system{cfg};
  rt::directory dir{system};
  rt::tree tree{dir, "/t", calm_options()};
  rt::child_options o;
  o.start_timeout = 50ms;
  auto a = tree.child_with<slow>("a", o, &births, &release);
  auto root = tree.run();
  caf::scoped_actor self{system};
  bool served = false;
  self->request(a, caf::infinite, note_atom::value).receive([&](bool b) { served = b; }, [](caf::error&) {});
  CHECK(served);
  CHECK(births == 2);
  release.count_down();
  CHECK(rt::shut_down_and_wait(system, root, 10s));
}

TEST_CASE("a constructor that takes too long while its supervisor stops does not hold up the shutdown") {
  threaded_config cfg;
  cfg.set("scheduler.max-threads", std::size_t{3});
  std::latch entered{1}, release{1};
  std::atomic<int> births{-1}; // the second one is slow
  caf::actor_system system{cfg};
  rt::directory dir{system};
  rt::tree tree{dir, "/t", calm_options()};
  rt::child_options o;
  o.start_timeout = 100ms;
  o.grace = 50ms;
  tree.child_with<slow>("a", o, &births, &release);
  o.grace = 300ms;
  auto b = tree.child_with<stuck>("b", o, &entered, &release);
  auto root = tree.run();
  caf::anon_send(b, ping_atom::value);
  entered.wait();
  REQUIRE(dir.kill("/t/a", rt::kill_mode::crash));
  while (births < 1)
    std::this_thread::sleep_for(1ms);
  CHECK(rt::shut_down_and_wait(system, root, 10s));
  release.count_down();
}

TEST_CASE("children of a dynamic supervisor come and go and leave nothing in the directory") {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  auto& pool = tree.node("pool", calm_options(rt::strategy::dynamic));
  w.run(tree);
  w.settle();
  const auto before = w.directory.size();
  auto start = [&](const std::string& name, rt::restart_kind kind) {
    auto p = w.ask(pool.handle(), rt::start_child_atom::value, rt::make_child<puppet>(name, of_kind(kind), name, &d));
    REQUIRE(p);
    return caf::actor_cast<puppet_actor>(*p);
  };
  for (int round = 0; round < 50; ++round) {
    auto finished = start("finished", rt::restart_kind::temporary);
    auto crashed = start("crashed", rt::restart_kind::temporary);
    auto transient = start("transient", rt::restart_kind::transient);
    auto stopped = start("stopped", rt::restart_kind::permanent);
    CHECK(w.directory.size() == before + 4);
    CHECK(w.ask(finished, ping_atom::value) == 1u);
    auto end = w.end_of(finished);
    w.tell(finished, quit_atom::value);
    CHECK(w.ask(crashed, crash_atom::value).error().code == ec::crashed);
    CHECK(w.ask(transient, crash_atom::value).error().code == ec::crashed);
    CHECK(w.ask(transient, ping_atom::value) == 1u);
    w.tell(transient, quit_atom::value);
    CHECK(w.ask(stopped, ping_atom::value) == 1u);
    CHECK(w.ask(pool.handle(), rt::stop_child_atom::value, "stopped") == true);
    w.settle();
    CHECK(*end == "normal");
    REQUIRE(w.directory.size() == before);
    CHECK(w.begin(finished, ping_atom::value).code() == ec::unavailable);
  }
}

TEST_CASE("a dynamic supervisor refuses taken names, bad names and more children than it may have") {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  auto o = calm_options(rt::strategy::dynamic);
  o.max_children = 2;
  auto& pool = tree.node("pool", o);
  w.run(tree);
  auto start = [&](const rt::supervisor_actor& at, const std::string& name) {
    auto p = w.ask(at, rt::start_child_atom::value, rt::make_child<puppet>(name, rt::child_options{}, name, &d));
    return p ? ec::none : p.error().code;
  };
  CHECK(start(pool.handle(), "x") == ec::none);
  CHECK(start(pool.handle(), "x") == ec::conflict);
  CHECK(start(pool.handle(), "") == ec::invalid);
  CHECK(start(pool.handle(), "y/z") == ec::invalid);
  CHECK(start(pool.handle(), "y") == ec::none);
  CHECK(start(pool.handle(), "z") == ec::overloaded);
  CHECK(start(tree.handle(), "x") == ec::unsupported);
  CHECK(w.ask(pool.handle(), rt::stop_child_atom::value, "nobody").error().code == ec::not_found);
}

TEST_CASE("a dynamic supervisor that crashes takes its children's names with it") {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  auto& pool = tree.node("pool", calm_options(rt::strategy::dynamic));
  w.run(tree);
  w.settle();
  const auto before = w.directory.size();
  auto p = w.ask(pool.handle(), rt::start_child_atom::value,
                 rt::make_child<puppet>("x", rt::child_options{}, std::string("x"), &d));
  auto x = caf::actor_cast<puppet_actor>(*p);
  auto end = w.end_of(x);
  w.directory.kill("/t/pool", rt::kill_mode::crash);
  w.advance(1s);
  CHECK(end->has_value());
  CHECK(w.directory.size() == before);
  CHECK(w.begin(x, ping_atom::value).code() == ec::unavailable);
  CHECK(d.take() == lines{"+x", "-x"});
  CHECK(w.ask(pool.handle(), rt::start_child_atom::value,
              rt::make_child<puppet>("x", rt::child_options{}, std::string("x"), &d)));
}

TEST_CASE("a tree may refer forward, so that children know each other in both directions") {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  auto later = tree.forward<puppet_actor>("b");
  auto a = tree.child<puppet>("a", std::string("a"), &d);
  auto b = tree.child<puppet>("b", std::string("b"), &d);
  CHECK(b == later);
  CHECK_THROWS_AS(tree.child<puppet>("a", std::string("a"), &d), std::logic_error);
  w.run(tree);
  CHECK(w.ask(later, ping_atom::value) == 1u);
}

TEST_CASE("in a storm of kills every call is answered exactly once") {
  const auto seed = seed_or(20261122);
  CAPTURE(seed);
  for (std::uint64_t run = 0; run < 20; ++run) {
    diary d;
    world w{seed + run};
    auto o = calm_options();
    o.restarts.jitter_percent = 20;
    o.restarts.backoff_max = 500ms;
    rt::tree tree{w.directory, "/t", o};
    auto group = o;
    group.how = run % 2 ? rt::strategy::one_for_all : rt::strategy::rest_for_one;
    auto& node = tree.node("n", group);
    rt::child_options tight;
    tight.ref.max_in_flight = 20;
    tight.ref.max_buffered = 10;
    tight.ref.call_timeout = 3s;
    tight.ref.restart_wait = 300ms;
    std::vector<puppet_actor> actors;
    const lines paths{"/t/a", "/t/n", "/t/n/b", "/t/n/c", "/t/n/d"};
    actors.push_back(tree.child_with<puppet>("a", tight, std::string("a"), &d));
    for (auto name : {"b", "c", "d"})
      actors.push_back(node.child_with<puppet>(name, tight, std::string(name), &d));
    w.run(tree);
    std::vector<question<std::uint64_t>> questions;
    for (int i = 0; i < 1500; ++i) {
      const auto& to = actors[w.random() % actors.size()];
      switch (w.random() % 8) {
      case 0: questions.push_back(w.begin(to, keep_atom::value)); break;
      case 1: questions.push_back(w.begin(to, forget_atom::value)); break;
      case 2:
        if (w.random() % 4 == 0) questions.push_back(w.begin(to, crash_atom::value));
        break;
      case 3:
        if (w.random() % 4 == 0) w.tell(to, quit_atom::value);
        break;
      case 4:
        if (w.random() % 4 == 0)
          w.directory.kill(paths[w.random() % paths.size()],
                           w.random() % 2 ? rt::kill_mode::exit : rt::kill_mode::crash);
        break;
      default: questions.push_back(w.begin(to, ping_atom::value));
      }
      for (auto steps = w.random() % 6; steps > 0; --steps)
        w.step();
    }
    w.advance(5s); // call_timeout, restart_wait and a sweep
    std::map<ec, int> tally;
    for (auto& q : questions) {
      REQUIRE(q.count() == 1);
      ++tally[q.code()];
    }
    CHECK(tally[ec::none] > 50); // the storm left something alive
    CHECK(tally[ec::restarted] > 0);
    CHECK(tally.size() >= 4);
    w.advance(60s);
    for (auto& a : actors)
      CHECK(w.ask(a, ping_atom::value));
    for (auto& s : w.directory.describe())
      CHECK(s.in_flight == 0);
  }
}

TEST_CASE("with real threads and real time, too, every call in a storm of kills is answered") {
  const auto seed = seed_or(20261122);
  CAPTURE(seed);
  threaded_config cfg;
  cfg.set("scheduler.max-threads", std::size_t{3});
  caf::actor_system system{cfg};
  rt::directory dir{system};
  auto o = calm_options();
  o.restarts.max_restarts = 1'000'000;
  o.restarts.backoff_first = 1ms;
  o.restarts.backoff_max = 5ms;
  rt::tree tree{dir, "/t", o};
  o.how = rt::strategy::rest_for_one;
  auto& node = tree.node("n", o);
  rt::child_options tight;
  tight.ref.call_timeout = 1s;
  std::vector<echo::interface> actors{node.child_with<echo>("a", tight), node.child_with<echo>("b", tight)};
  auto root = tree.run();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> answered{0}, failed{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t)
    callers.emplace_back([&, t] {
      caf::scoped_actor self{system};
      for (std::uint64_t i = 0; !stop; ++i)
        self->request(actors[(i + static_cast<unsigned>(t)) % 2], caf::infinite, ping_atom::value, i)
            .receive([&](std::uint64_t x) { answered += x == i; }, [&](caf::error&) { ++failed; });
    });
  std::mt19937_64 random{seed};
  const lines paths{"/t/n/a", "/t/n/b", "/t/n"};
  for (int kills = 0; kills < 200; ++kills) {
    dir.kill(paths[random() % 3], random() % 2 ? rt::kill_mode::exit : rt::kill_mode::crash);
    dir.describe();
    std::this_thread::sleep_for(std::chrono::milliseconds{random() % 5});
  }
  stop = true;
  for (auto& c : callers)
    c.join(); // would hang here if a call were never answered
  CHECK(answered > 0);
  CHECK(failed < 5000); // callers wait for the next incarnation instead of failing in a tight loop
  CHECK(rt::shut_down_and_wait(system, root, 10s));
}
