#include "puppet.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::test;
using namespace std::chrono_literals;

namespace {

struct fixture {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  puppet_actor a;

  explicit fixture(rt::child_options o = {}) : a(tree.child_with<puppet>("a", o, std::string("a"), &d)) {}
  void run() {
    w.run(tree);
    w.settle();
  }
};

class careless {
public:
  using interface = caf::typed_actor<caf::reacts_to<ping_atom>, caf::reacts_to<std::uint64_t>,
                                     caf::replies_to<note_atom>::with<bool>>;
  static constexpr const char* name = "careless";
  careless(rt::self<interface>* self, puppet_actor to) : self_(self), to_(std::move(to)) {}
  interface::behavior_type make_behavior() {
    return {[this](ping_atom) { self_->send(to_, forget_atom::value); }, [](std::uint64_t) {},
            [](note_atom) { return true; }};
  }

private:
  rt::self<interface>* self_;
  puppet_actor to_;
};

} // namespace

TEST_CASE("a request sent before anything runs is answered once the actor is up") {
  fixture f;
  auto q = f.w.begin(f.a, ping_atom::value);
  CHECK(f.w.status("/t/a").state == actor_state::starting);
  f.run();
  REQUIRE(q.answered());
  CHECK(q.get() == 1u);
}

TEST_CASE("the request that makes an actor throw is told so, with the message and the text") {
  fixture f;
  f.run();
  auto answer = f.w.ask(f.a, crash_atom::value);
  REQUIRE(!answer);
  CHECK(answer.error().code == ec::crashed);
  CHECK(answer.error().what == "in 'crash': as told");
}

TEST_CASE("after a crash the next call is answered by a new incarnation, when the backoff is over") {
  fixture f;
  f.run();
  CHECK(f.w.ask(f.a, ping_atom::value) == 1u);
  f.w.ask(f.a, crash_atom::value);
  const auto then = f.w.elapsed();
  CHECK(f.w.ask(f.a, ping_atom::value) == 1u);
  CHECK(f.w.elapsed() - then == 100ms);
}

TEST_CASE("a request in flight at a crash gets restarted") {
  fixture f;
  f.run();
  auto q = f.w.begin(f.a, keep_atom::value);
  f.w.settle();
  f.w.ask(f.a, crash_atom::value);
  f.w.settle();
  REQUIRE(q.count() == 1);
  CHECK(q.code() == ec::restarted);
}

TEST_CASE("a request still in the mailbox at a crash gets unavailable: it never started") {
  diary d;
  world w;
  rt::tree tree{w.directory, "/t", calm_options()};
  auto a = tree.child<puppet>("a", std::string("a"), &d);
  w.run(tree);
  w.settle();
  w.tell(a, quit_atom::value);
  auto q = w.begin(a, note_atom::value, "late"); // behind the message that ends the actor
  w.settle();
  REQUIRE(q.answered());
  CHECK(q.code() == ec::unavailable);
  CHECK(q.get().error().what == "/t/a ended before it began");
  CHECK(d.take() == std::vector<std::string>{"+a", "-a"});
}

TEST_CASE("a dropped promise is answered at once") {
  fixture f;
  f.run();
  const auto then = f.w.elapsed();
  auto answer = f.w.ask(f.a, forget_atom::value);
  REQUIRE(!answer);
  CHECK(answer.error().code == ec::restarted);
  CHECK(f.w.elapsed() == then);
}

TEST_CASE("a request that is never answered meets its deadline, and only then") {
  rt::child_options o;
  o.ref.call_timeout = 5s;
  fixture f{o};
  f.run();
  const auto then = f.w.elapsed();
  auto answer = f.w.ask(f.a, keep_atom::value);
  REQUIRE(!answer);
  CHECK(answer.error().code == ec::deadline);
  CHECK(f.w.elapsed() - then > 5s);
  CHECK(f.w.elapsed() - then <= 5s + rt::directory::sweep_period);
}

TEST_CASE("messages held during a restart are served in order, before those that come later") {
  fixture f;
  f.run();
  f.w.ask(f.a, crash_atom::value);
  f.d.take();
  for (auto text : {"1", "2", "3"})
    f.w.begin(f.a, note_atom::value, text);
  f.w.advance(99ms);
  CHECK(f.w.status("/t/a").buffered == 3);
  CHECK(f.d.take().empty());
  f.w.begin(f.a, note_atom::value, "4");
  f.w.advance(1ms);
  CHECK(f.d.take() == std::vector<std::string>{"+a", "1", "2", "3", "4"});
}

TEST_CASE("beyond max_buffered a restarting actor's callers get unavailable at once") {
  rt::child_options o;
  o.ref.max_buffered = 2;
  fixture f{o};
  f.run();
  f.w.ask(f.a, crash_atom::value);
  auto q1 = f.w.begin(f.a, ping_atom::value), q2 = f.w.begin(f.a, ping_atom::value),
       q3 = f.w.begin(f.a, ping_atom::value);
  REQUIRE(q3.answered());
  CHECK(q3.code() == ec::unavailable);
  CHECK(!q1.answered());
  f.w.advance(100ms);
  CHECK(q2.get() == 2u);
}

TEST_CASE("beyond max_in_flight callers get overloaded") {
  rt::child_options o;
  o.ref.max_in_flight = 2;
  fixture f{o};
  f.run();
  f.w.begin(f.a, keep_atom::value);
  f.w.begin(f.a, keep_atom::value);
  auto q = f.w.begin(f.a, keep_atom::value);
  REQUIRE(q.answered());
  CHECK(q.code() == ec::overloaded);
}

TEST_CASE("a call waits at most restart_wait for a restart") {
  rt::child_options o;
  o.ref.restart_wait = 1s;
  fixture f{o};
  f.run();
  for (int i = 0; i < 6; ++i) { // the sixth backoff is 3.2 s
    f.w.ask(f.a, crash_atom::value);
    if (i < 5) f.w.advance(2s);
  }
  const auto then = f.w.elapsed();
  auto answer = f.w.ask(f.a, ping_atom::value);
  REQUIRE(!answer);
  CHECK(answer.error().code == ec::unavailable);
  CHECK(f.w.elapsed() - then <= 1s + rt::directory::sweep_period);
}

TEST_CASE("a constructor that throws loses no held request") {
  fixture f;
  f.d.fail_to_start = true;
  f.run();
  auto q = f.w.begin(f.a, ping_atom::value);
  f.w.advance(150ms);
  CHECK(!q.answered());
  CHECK(f.w.status("/t/a").last_exit == "crashed: cannot start");
  f.d.fail_to_start = false;
  f.w.advance(1s);
  REQUIRE(q.count() == 1);
  CHECK(q.get() == 1u);
}

TEST_CASE("a monitor of a name fires once per incarnation, and at once when the name has ended") {
  rt::child_options o;
  o.kind = rt::restart_kind::transient;
  fixture f{o};
  f.run();
  auto first = f.w.end_of(f.a);
  f.w.ask(f.a, crash_atom::value);
  f.w.advance(200ms);
  REQUIRE(first->has_value());
  CHECK(**first == "crashed: in 'crash': as told");
  auto second = f.w.end_of(f.a);
  CHECK(!second->has_value());
  f.w.tell(f.a, quit_atom::value);
  f.w.advance(200ms);
  CHECK(*second == "normal");
  CHECK(*f.w.end_of(f.a) == "normal");
}

TEST_CASE("describe tells state, counts, the last exit and what the actor says it does") {
  fixture f;
  f.run();
  f.w.ask(f.a, note_atom::value, "x");
  f.w.begin(f.a, keep_atom::value);
  f.w.advance(2s);
  auto s = f.w.status("/t/a");
  CHECK(s.kind == "puppet");
  CHECK(s.state == actor_state::up);
  CHECK(s.doing == "noting x");
  CHECK(s.in_flight == 1);
  CHECK(s.handled == 2);
  CHECK(s.mailbox == 0);
  CHECK(s.uptime_ms == 2000);
  CHECK(s.last_exit.empty());
  f.w.ask(f.a, crash_atom::value);
  f.w.settle();
  s = f.w.status("/t/a");
  CHECK(s.state == actor_state::restarting);
  CHECK(s.last_exit == "crashed: in 'crash': as told");
  f.w.advance(1s);
  s = f.w.status("/t/a");
  CHECK(s.state == actor_state::up);
  CHECK(s.restarts == 1);
  CHECK(f.w.status("/t").kind == "supervisor");
}

TEST_CASE("an operator's kill ends an actor ahead of its mail, by exit or by an exception") {
  fixture f;
  f.run();
  auto q = f.w.begin(f.a, ping_atom::value);
  REQUIRE(f.w.directory.kill("/t/a", rt::kill_mode::exit));
  f.w.settle();
  CHECK(q.code() == ec::unavailable);
  CHECK(f.w.status("/t/a").last_exit == "killed");
  f.w.advance(1s);
  REQUIRE(f.w.directory.kill("/t/a", rt::kill_mode::crash));
  f.w.advance(1s);
  CHECK(f.w.status("/t/a").last_exit == "crashed: in 'rt_crash': killed by operator");
  CHECK(f.w.ask(f.a, ping_atom::value) == 1u);
  CHECK(!f.w.directory.kill("/t/nobody"));
}

TEST_CASE("a failure that answers a plain send does not kill its sender") {
  fixture f;
  auto c = f.tree.child<careless>("c", f.a);
  f.run();
  f.w.tell(c, ping_atom::value);
  f.w.settle();
  CHECK(f.w.ask(c, note_atom::value) == true);
  CHECK(f.w.status("/t/c").restarts == 0);
}

TEST_CASE("the same seed gives the same history") {
  auto history = [](std::uint64_t seed) {
    diary d;
    world w{seed};
    rt::tree tree{w.directory, "/t", calm_options()};
    auto a = tree.child<puppet>("a", std::string("a"), &d);
    auto b = tree.child<puppet>("b", std::string("b"), &d);
    w.run(tree);
    for (int i = 0; i < 20; ++i) {
      w.begin(i % 2 ? a : b, ping_atom::value);
      if (i % 7 == 0) w.begin(a, crash_atom::value);
      w.advance(30ms);
    }
    return w.hash();
  };
  CHECK(history(1) == history(1));
  CHECK(history(1) != history(2));
}
