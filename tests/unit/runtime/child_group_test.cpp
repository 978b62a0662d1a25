#include "runtime/child_group.hpp"
#include "tests/support/seed.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace coppice::rt;
using namespace std::chrono_literals;

namespace {

using fate = child_group::fate;
using child_id = child_group::child_id;
using ids = std::vector<child_id>;

/// The rules again, as slowly and plainly as possible: all children are looked through at each step.
struct reference {
  enum class is { ended, waiting, starting, up, stopping };
  struct child {
    restart_kind kind;
    std::size_t own_restarts_max;
    bool inherited;
    is now;
    child_group::time not_before;
    bool must_stop = false, comes_back = false;
    bool runs() const { return now == is::starting || now == is::up || now == is::stopping; }
  };
  strategy how;
  restart_policy policy;
  std::map<child_id, child> children{};
  bool finishing = false;

  void add(child_id id, restart_kind kind, bool runs, child_group::time t, std::size_t own_restarts_max) {
    children[id] = {kind, own_restarts_max, runs, runs ? is::up : is::waiting, t, runs, runs};
  }
  void leave_for_good(child& c) {
    c.comes_back = false;
    if (c.now == is::waiting) c.now = is::ended;
    c.must_stop = c.must_stop || c.now == is::starting || c.now == is::up;
  }
  void finish() {
    finishing = true;
    for (auto& [id, c] : children)
      leave_for_good(c);
  }
  child_group::verdict end(child_id id, bool abnormal, child_group::time t) {
    auto& c = children.at(id);
    const bool ordered = c.must_stop || c.now == is::stopping;
    c.must_stop = c.inherited = false;
    c.now = is::ended;
    if (ordered && !c.comes_back) return {fate::stopped};
    if (ordered) {
      c.now = is::waiting;
      return {fate::rejoins, c.not_before};
    }
    const auto decision = policy.step(restart_policy::ended{id, c.kind, abnormal, c.own_restarts_max}, t);
    if (std::holds_alternative<restart_policy::leave_ended>(decision)) return {fate::stays_ended};
    if (std::holds_alternative<restart_policy::spent>(decision)) return {fate::spent};
    if (std::holds_alternative<restart_policy::give_up>(decision)) {
      finish();
      return {fate::gives_up};
    }
    c.now = is::waiting;
    c.not_before = t + std::get<restart_policy::restart_after>(decision).delay;
    for (auto& [other, o] : children) {
      const bool follows =
          other != id && (how == strategy::one_for_all || (how == strategy::rest_for_one && other > id));
      if (!follows) continue;
      o.not_before = std::max(o.not_before, c.not_before);
      if (o.now != is::starting && o.now != is::up) continue;
      o.must_stop = true;
      o.comes_back = o.kind != restart_kind::temporary;
    }
    return {fate::restarts, c.not_before};
  }

  bool any(auto which) const {
    return std::any_of(children.begin(), children.end(), [&](auto& c) { return which(c.second); });
  }
  child_group::orders next(child_group::time t) {
    child_group::orders out;
    for (auto i = children.rbegin(); i != children.rend(); ++i) {
      if (!i->second.must_stop) continue;
      if (how != strategy::dynamic && any([](auto& c) { return c.now == is::stopping; })) break;
      i->second.must_stop = false;
      i->second.now = is::stopping;
      out.stop.push_back({i->first, i->second.comes_back});
    }
    out.over = finishing && !any([](auto& c) { return c.runs(); });
    const bool group = how == strategy::one_for_all || how == strategy::rest_for_one;
    if (finishing || any([](auto& c) { return c.inherited; })) return out;
    if (group && any([](auto& c) { return c.must_stop || c.now == is::stopping; })) return out;
    for (auto& [id, c] : children) {
      if (c.now == is::waiting && c.not_before <= t) {
        c.now = is::starting;
        policy.step(restart_policy::started{id}, t);
        out.start.push_back(id);
      }
      if (c.now == is::starting && how != strategy::dynamic) break;
      if (c.now == is::waiting) out.wake = std::min(out.wake.value_or(c.not_before), c.not_before);
    }
    return out;
  }
};

/// Children as they are, who do as they are ordered or not; and what must be true of any supervisor's orders.
struct family {
  enum class doing { nothing, starting, serving, stopping };
  struct child {
    restart_kind kind;
    doing now;
    bool for_good = false; ///< was told to end for good, or did
    int starts = 0;
    child_group::time due{0};
    std::size_t born = 0, died = 0; ///< in the count of all births and deaths
  };
  strategy how;
  child_group group;
  reference expected;
  std::map<child_id, child> children{};
  child_group::time now = 1h;
  bool finished = false, over = false;
  std::size_t count = 0;
  std::optional<child_group::time> wake{};
  std::map<fate, int>& seen;

  family(strategy s, restart_options o, std::uint64_t seed, std::map<fate, int>& all_seen)
      : how(s), group(s, o, seed), expected{s, {o, seed}}, seen(all_seen) {}

  bool in_order() const { return how != strategy::dynamic; }
  bool grouped() const { return how == strategy::one_for_all || how == strategy::rest_for_one; }
  bool follows(child_id other, child_id of) const {
    return how == strategy::one_for_all ? other != of : how == strategy::rest_for_one && other > of;
  }
  ids those(auto which) const {
    ids out;
    for (auto& [id, c] : children)
      if (which(c)) out.push_back(id);
    return out;
  }
  ids running() const {
    return those([](auto& c) { return c.now != doing::nothing; });
  }
  ids stopping() const {
    return those([](auto& c) { return c.now == doing::stopping; });
  }

  void add(restart_kind kind, bool runs, std::size_t own_restarts_max) {
    const auto id = group.add(kind, runs, now, own_restarts_max);
    REQUIRE((children.empty() || id > children.rbegin()->first));
    children[id] = {kind, runs ? doing::serving : doing::nothing};
    expected.add(id, kind, runs, now, own_restarts_max);
  }
  void dismiss(child_id id) {
    expected.leave_for_good(expected.children.at(id));
    children.at(id).for_good = true;
    if (group.dismiss(id)) {
      CHECK(children.at(id).now == doing::nothing);
      remove(id);
    }
    obey();
  }
  void remove(child_id id) {
    group.remove(id, now);
    expected.policy.step(restart_policy::removed{id}, now);
    expected.children.erase(id);
    children.erase(id);
  }
  void finish() {
    group.finish();
    expected.finish();
    finished = true;
    obey();
  }
  void become_ready(child_id id) {
    auto& c = children.at(id);
    if (c.now == doing::starting) c.now = doing::serving;
    if (group.up(id)) expected.children.at(id).now = reference::is::up;
    obey();
  }
  void run_late(child_id id) {
    const auto was = children.at(id).now;
    const auto patience = group.late(id);
    if (was == doing::starting) CHECK(patience == child_group::patience::no_start);
    if (was == doing::nothing || was == doing::serving) CHECK(patience == child_group::patience::left);
    if (was == doing::stopping && patience == child_group::patience::kill)
      CHECK(group.late(id) == child_group::patience::no_stop);
    if (patience != child_group::patience::left) end(id, true);
  }
  void end(child_id id, bool abnormal) {
    auto& c = children.at(id);
    const auto verdict = group.ended(id, abnormal, now);
    const auto should = expected.end(id, abnormal, now);
    REQUIRE(verdict.what == should.what);
    ++seen[verdict.what];
    const bool comes_back = verdict.what == fate::restarts || verdict.what == fate::rejoins;
    if (comes_back) REQUIRE(verdict.due == should.due);
    if (c.now == doing::stopping) CHECK((verdict.what == fate::rejoins || verdict.what == fate::stopped));
    if (verdict.what == fate::restarts) {
      CHECK((c.kind == restart_kind::permanent || (c.kind == restart_kind::transient && abnormal)));
      c.died = ++count;
    }
    finished = finished || verdict.what == fate::gives_up;
    c.now = doing::nothing;
    c.due = verdict.due;
    c.for_good = c.for_good || !comes_back;
    if (c.for_good && !in_order() && !finished) remove(id);
    obey();
  }
  void pass(child_group::time d) {
    now += d;
    obey();
  }

  void obey() {
    const auto orders = group.next(now);
    REQUIRE(orders == expected.next(now));
    wake = orders.wake;
    for (auto [id, again] : orders.stop) {
      auto& c = children.at(id);
      CHECK((c.now == doing::starting || c.now == doing::serving));
      if (in_order()) CHECK(stopping().empty());
      c.now = doing::stopping;
    }
    for (auto id : orders.start)
      check_start(id);
    if (orders.over) {
      CHECK(finished);
      CHECK(running().empty());
    }
    over = orders.over;
  }
  void check_start(child_id id) {
    auto& c = children.at(id);
    CHECK(c.now == doing::nothing); // no two incarnations side by side
    CHECK(!finished);
    CHECK(!c.for_good);
    CHECK(c.due <= now);
    if (c.kind == restart_kind::temporary) CHECK(c.starts == 0);
    if (grouped()) CHECK(stopping().empty());
    if (in_order())
      for (auto& [other, o] : children)
        CHECK((other >= id || o.now != doing::starting)); // those before it are ready
    for (auto& [other, o] : children)                     // whoever must follow a death does not outlive it
      if (c.died > c.born && follows(other, id) && o.now != doing::nothing) CHECK(o.born > c.died);
    c.now = doing::starting;
    c.born = ++count;
    ++c.starts;
  }

  /// From here on all do as ordered, and nothing else happens.
  void settle() {
    for (int steps = 0; steps < 1000; ++steps) {
      if (auto stops = stopping(); !stops.empty())
        end(stops.front(), false);
      else if (auto starts = those([](auto& c) { return c.now == doing::starting; }); !starts.empty())
        become_ready(starts.front());
      else if (wake)
        pass(std::max(*wake - now, child_group::time{1}));
      else
        return;
    }
    FAIL("the group does not settle");
  }
};

void random_news(family& f, std::mt19937_64& random) {
  auto below = [&](std::uint64_t n) { return random() % n; };
  auto one_of = [&](const ids& some) { return some[below(some.size())]; };
  const auto all = f.those([](auto&) { return true; });
  const auto running = f.running();
  switch (below(10)) {
  case 0:
    if (!f.in_order() && !f.finished) {
      f.add(static_cast<restart_kind>(below(3)), false, below(4));
      f.obey();
    }
    return;
  case 1:
    if (!f.in_order() && !all.empty()) f.dismiss(one_of(all));
    return;
  case 2:
    if (below(20) == 0) f.finish();
    return;
  case 3: return f.pass(std::chrono::milliseconds{below(3000)});
  case 4: return f.pass(f.wake && *f.wake > f.now ? *f.wake - f.now : 0ns);
  case 5:
    if (!running.empty()) f.run_late(one_of(running));
    return;
  case 6:
    if (!running.empty()) f.end(one_of(running), below(2) == 0);
    return;
  case 7:
    if (auto stops = f.stopping(); !stops.empty()) f.end(stops.front(), false);
    return;
  default:
    if (!all.empty()) f.become_ready(one_of(all));
  }
}

restart_options often() {
  restart_options o;
  o.max_restarts = 1000;
  o.jitter_percent = 0;
  return o;
}

child_group three(strategy how, restart_options o = often()) {
  child_group g{how, o, 1};
  for (int i = 0; i < 3; ++i)
    g.add(restart_kind::permanent, false, 1h);
  for (child_id id : {1, 2, 3}) {
    CHECK(g.next(1h).start == ids{id});
    CHECK(g.up(id));
  }
  CHECK(g.next(1h) == child_group::orders{});
  return g;
}

} // namespace

TEST_CASE("a group tells when a child that died is due, and starts it then") {
  auto g = three(strategy::one_for_one);
  auto verdict = g.ended(2, true, 1h);
  CHECK(verdict.what == fate::restarts);
  CHECK(verdict.due == 1h + 100ms);
  auto orders = g.next(1h);
  CHECK(orders.stop.empty());
  CHECK(orders.start.empty());
  CHECK(orders.wake == 1h + 100ms);
  CHECK(g.next(1h + 100ms).start == ids{2});
}

TEST_CASE("a group that gives up stops its children last first and is over when the first has ended") {
  auto o = often();
  o.max_restarts = 0;
  auto g = three(strategy::one_for_one, o);
  CHECK(g.ended(2, true, 1h).what == fate::gives_up);
  CHECK(g.finishing());
  CHECK(g.next(1h).stop == std::vector{child_group::stop_order{3, false}});
  CHECK(g.ended(3, false, 1h).what == fate::stopped);
  CHECK(g.next(1h).stop == std::vector{child_group::stop_order{1, false}});
  CHECK(!g.next(1h).over);
  CHECK(g.ended(1, true, 1h).what == fate::stopped);
  CHECK(g.next(1h).over);
}

TEST_CASE("a child that is to be stopped and meanwhile did not even start in time has been stopped, and did not die") {
  auto g = three(strategy::one_for_one);
  g.ended(1, true, 1h);
  CHECK(g.next(1h + 100ms).start == ids{1});
  g.finish();
  CHECK(g.next(1h + 100ms).stop == std::vector{child_group::stop_order{3, false}});
  CHECK(g.late(1) == child_group::patience::no_start);
  CHECK(g.ended(1, true, 1h + 200ms).what == fate::stopped);
  CHECK(g.next(1h + 200ms) == child_group::orders{});
  g.ended(3, false, 1h + 200ms);
  CHECK(g.next(1h + 200ms).stop == std::vector{child_group::stop_order{2, false}});
  g.ended(2, false, 1h + 200ms);
  CHECK(g.next(1h + 200ms).over);
}

TEST_CASE("what a group decides agrees with its reference, and with what is true of any, on random histories") {
  const auto base = coppice::test::seed_or(20261123);
  std::map<fate, int> seen;
  int settled_up = 0, settled_over = 0;
  for (auto seed = base; seed < base + 2'000; ++seed) {
    INFO("COPPICE_SEED=" << seed << " test_unit_runtime 'what a group decides*'");
    std::mt19937_64 random{seed};
    auto below = [&](std::uint64_t n) { return random() % n; };
    restart_options o;
    o.max_restarts = below(12);
    o.within = std::chrono::milliseconds{1 + below(20'000)};
    o.backoff_first = std::chrono::milliseconds{below(500)};
    o.calm = std::chrono::milliseconds{1 + below(10'000)};
    family f{static_cast<strategy>(below(4)), o, random(), seen};
    const bool succeeds = below(4) == 0;
    for (auto n = below(6); n > 0; --n)
      f.add(static_cast<restart_kind>(below(3)), succeeds && below(3) > 0, below(2) * below(4));
    f.obey();
    for (auto steps = below(200); steps > 0 && !f.over; --steps)
      random_news(f, random);
    f.settle();
    CHECK(f.over == f.finished);
    for (auto& [id, c] : f.children)
      CHECK((f.finished || c.for_good || c.now == family::doing::serving));
    ++(f.over ? settled_over : settled_up);
  }
  for (auto what : {fate::restarts, fate::rejoins, fate::stopped, fate::stays_ended, fate::spent, fate::gives_up})
    CHECK(seen[what] > 100);
  CHECK(settled_up > 100);
  CHECK(settled_over > 100);
}
