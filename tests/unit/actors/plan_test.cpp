#include "actors/plan/plan.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>
#include <set>
#include <sstream>

using namespace coppice;
using namespace coppice::actors;
using ledger::lock_state;
using ledger::phase;

namespace {

inhash key_of(const std::string& name) {
  inhash k;
  for (std::size_t i = 0; i < name.size() && i < 32; ++i) k.bytes[i] = static_cast<std::uint8_t>(name[i]);
  return k;
}

nix::store_path drv_of(const std::string& name) {
  return *nix::store_path::from_base_name("00000000000000000000000000000000-" + name + ".drv");
}

/// A graph in words: "app <- lib, cc; lib <- cc". The first name is the root unless others are given; "fetch2=fetch"
/// names a node that shares the inhash of another, "vm/1" one of lane 1.
struct graph {
  std::vector<plan_node> nodes;
  std::map<std::string, std::uint32_t> index;

  std::uint32_t node(const std::string& word) {
    auto name = word.substr(0, word.find('='));
    auto key = word.find('=') == std::string::npos ? name : word.substr(word.find('=') + 1);
    auto [it, fresh] = index.emplace(name, static_cast<std::uint32_t>(nodes.size()));
    auto slash = name.find('/');
    auto lane = slash == std::string::npos ? 0u : static_cast<std::uint32_t>(std::stoul(name.substr(slash + 1)));
    if (fresh) nodes.push_back({drv_of(name.substr(0, slash)), key_of(key), {}, {}, lane});
    return it->second;
  }
  /// Is `user` among what `input` is made of?
  bool below(const std::string& user, const std::string& input) {
    auto i = node(input), u = node(user);
    if (i == u) return true;
    return std::any_of(nodes[i].inputs.begin(), nodes[i].inputs.end(),
                       [&](auto x) { return x == u || below(user, name_of(x)); });
  }
  std::string name_of(std::uint32_t i) {
    for (auto& [n, at] : index)
      if (at == i) return n;
    return {};
  }
  explicit graph(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line, ';');) {
      std::replace(line.begin(), line.end(), ',', ' ');
      std::istringstream words(line);
      std::string head, arrow, input;
      words >> head >> arrow;
      auto h = node(head);
      while (words >> input) {
        auto i = node(input);
        nodes[h].inputs.push_back(i);
      }
    }
  }
};

/// Plays ledger, lock manager and workers for one plan, and writes down what it effects.
struct farm {
  graph g;
  plan p;
  std::map<inhash, lock_state> rows;
  std::vector<std::string> acquired, placed, released, substituted;
  std::vector<plan::retry_later> delays;
  std::vector<inhash> lent;
  std::set<std::string> upstream; ///< names that an upstream cache has
  std::map<std::string, step_event> told;
  std::optional<request_state> over;
  std::uint64_t tokens = 0, number;
  bool discovered = false;

  farm(const std::string& text, bool keep_going = false, std::vector<std::string> roots = {}, std::uint64_t request_number = 5,
       bool fail_unplaceable = false)
      : g(text)
      , p(g.nodes, root_indices(roots), options_of(keep_going, request_number, fail_unplaceable))
      , number(request_number) {}
  static plan::options options_of(bool keep_going, std::uint64_t request_number, bool fail_unplaceable) {
    plan::options o;
    o.keep_going = keep_going;
    o.request_number = request_number;
    o.fail_unplaceable = fail_unplaceable;
    return o;
  }
  std::vector<std::uint32_t> root_indices(const std::vector<std::string>& names) {
    if (names.empty()) return {0};
    std::vector<std::uint32_t> r;
    for (auto& n : names) r.push_back(g.index.at(n));
    return r;
  }
  std::string name(std::uint32_t i) {
    auto n = std::string(g.nodes[i].drv.name());
    return n.substr(0, n.size() - 4);
  }
  lock_state& row(const std::string& n) {
    auto& r = rows[key_of(n)];
    r.key = key_of(n);
    return r;
  }
  farm& there(const std::string& n) {
    auto& r = row(n);
    r.phase = phase::realised;
    r.published = true;
    r.outputs = {realised_output{}};
    return *this;
  }
  void run(plan::effects effects) {
    for (auto& e : effects) {
      if (auto* a = std::get_if<plan::ask>(&e)) {
        std::vector<lock_state> answer;
        for (auto& k : a->keys) {
          rows[k].key = k;
          if (upstream.contains(name(p.nodes_of(k).front())) && rows[k].phase != phase::realised)
            run(p.on_upstream(k, {realised_output{}}));
          else
            answer.push_back(rows[k]);
        }
        run(p.on_rows(answer));
      } else if (std::get_if<plan::discovered>(&e)) {
        discovered = true;
        run(p.begin());
      } else if (auto* q = std::get_if<plan::acquire>(&e)) {
        acquired.push_back(name(q->node));
        auto& r = rows[g.nodes[q->node].key];
        if (r.phase == phase::free && !(r.failed && (r.failed->after >= number || r.failed->count >= 3))) {
          r.phase = phase::queued;
          r.token = {++tokens};
          run(p.on_granted(r.key, r.token));
        } else {
          run(p.on_held(r));
        }
      } else if (auto* w = std::get_if<plan::place>(&e)) {
        placed.push_back(name(w->node));
      } else if (auto* l = std::get_if<plan::release>(&e)) {
        released.push_back(name(l->node));
        if (auto& r = rows[g.nodes[l->node].key]; r.phase == phase::queued) r.phase = phase::free;
      } else if (auto* s = std::get_if<plan::substitute>(&e)) {
        substituted.push_back(name(s->node));
      } else if (auto* d = std::get_if<plan::retry_later>(&e)) {
        delays.push_back(*d);
      } else if (auto* shared = std::get_if<plan::lend>(&e)) {
        lent.push_back(shared->key);
      } else if (auto* t = std::get_if<plan::tell>(&e)) {
        auto n = std::string(t->event.drv.name());
        told[n.substr(0, n.size() - 4)] = t->event;
      } else if (auto* o = std::get_if<plan::over>(&e)) {
        REQUIRE_FALSE(over);
        over = o->state;
      }
    }
  }
  farm& start() {
    run(p.start());
    return *this;
  }
  void building(const std::string& n) {
    auto& r = row(n);
    r.origin = r.token;
    r.phase = phase::building;
    r.token = {++tokens};
    run(p.on_rows({r}));
  }
  void built(const std::string& n) {
    building(n);
    auto& r = row(n);
    r.phase = phase::realised;
    r.outputs = {realised_output{}};
    run(p.on_rows({r}));
    r.published = true;
    run(p.on_rows({r}));
  }
  void fails(const std::string& n) {
    building(n);
    auto& r = row(n);
    r.phase = phase::free;
    r.failed = ledger::failure_record{failure::build_failed, r.token, 5, "exit code 1", "boom"};
    run(p.on_rows({r}));
  }
  /// The store lost what was made of these, and `user` found out.
  void vanish(const std::vector<std::string>& lost, const std::string& user) {
    std::vector<std::uint32_t> producers;
    for (auto& n : lost) {
      row(n) = {};
      row(n).key = key_of(n);
      producers.push_back(g.index.at(n));
    }
    run(p.on_vanished(key_of(user), producers));
  }
  step_state state(const std::string& n) { return p.state(g.index.at(n)); }
};

using names = std::vector<std::string>;

} // namespace

TEST_CASE("what exists is not planned, nor is anything below it") {
  farm f("app <- lib, cc; lib <- cc; cc <- seed");
  f.there("app").start();
  CHECK(f.over == request_state::succeeded);
  CHECK(f.acquired.empty());
  CHECK(f.p.counts().reused == 1);
  CHECK(f.p.counts().total == 1);
  CHECK(f.told.at("app").state == step_state::reused);
  CHECK(f.told.size() == 1);
}

TEST_CASE("a plan counts the locks that no worker has, by lane") {
  farm f("app <- lib, cc/1");
  f.start();
  CHECK(f.p.queued(0) == 1);
  CHECK(f.p.queued(1) == 1);
  f.building("cc/1");
  CHECK(f.p.queued(1) == 0);
  f.built("cc/1");
  f.built("lib");
  CHECK(f.p.queued(0) == 1); // app
  f.built("app");
  CHECK(f.p.queued(0) == 0);
}

TEST_CASE("what an upstream cache has is not built, and its inputs are not even looked at") {
  farm f("app <- lib, cc; lib <- cc; cc <- seed");
  f.upstream = {"lib", "cc"};
  f.start();
  CHECK(f.placed == names{"app"});
  CHECK(f.substituted.empty());
  CHECK(f.p.counts().reused == 2);
  CHECK(f.p.counts().total == 3);
  f.built("app");
  CHECK(f.over == request_state::succeeded);
}

TEST_CASE("a root that an upstream cache has is substituted, and over only when it is realised and published") {
  farm f("app <- lib");
  f.upstream = {"app"};
  f.start();
  CHECK(f.substituted == names{"app"});
  f.run(f.p.on_rows({f.row("app")})); // the row as it was
  CHECK(f.acquired.empty());
  CHECK_FALSE(f.over);
  f.there("app");
  f.run(f.p.on_rows({f.row("app")}));
  CHECK(f.over == request_state::succeeded);
  CHECK(f.p.counts().reused == 1);
  CHECK(f.p.counts().built == 0);
}

TEST_CASE("a root that could not be substituted after all is built, with all that it needs") {
  farm f("app <- lib; lib <- cc");
  f.upstream = {"app"};
  f.start();
  f.upstream = {"cc"};
  f.run(f.p.on_not_substituted(key_of("app")));
  CHECK(f.placed == names{"lib"});
  f.built("lib");
  f.built("app");
  CHECK(f.over == request_state::succeeded);
  CHECK(f.p.counts().built == 2);
  CHECK(f.p.counts().reused == 1);
  CHECK(f.p.counts().total == 3);
}

TEST_CASE("a root that could not be substituted is not attempted if what it needs has failed by then") {
  farm f("app <- lib; other <- lib", true, {"app", "other"});
  f.upstream = {"app"};
  f.start();
  f.fails("lib");
  CHECK_FALSE(f.over);
  f.upstream.clear();
  f.run(f.p.on_not_substituted(key_of("app")));
  CHECK(f.state("app") == step_state::not_attempted);
  CHECK(f.over == request_state::failed);
}

TEST_CASE("what an upstream cache had and has no longer is built, and who needs it waits for it") {
  farm f("app <- lib; lib <- cc");
  f.upstream = {"lib"};
  f.start();
  REQUIRE(f.placed == names{"app"});
  f.upstream.clear();
  f.row("app").phase = phase::free;
  f.run(f.p.on_vanished(key_of("app"), {f.g.index.at("lib")}));
  CHECK(f.placed == names{"app", "cc"});
  f.built("cc");
  f.built("lib");
  f.built("app");
  CHECK(f.over == request_state::succeeded);
  CHECK(f.p.counts().built == 3);
  CHECK(f.p.counts().total == 3);
}

TEST_CASE("a step starts when all its inputs are there, not before") {
  farm f("app <- lib, cc; lib <- cc");
  f.start();
  CHECK(f.placed == names{"cc"});
  f.built("cc");
  CHECK(f.placed == names{"cc", "lib"});
  f.built("lib");
  CHECK(f.placed == names{"cc", "lib", "app"});
  CHECK_FALSE(f.over);
  f.built("app");
  CHECK(f.over == request_state::succeeded);
  CHECK(f.p.counts().built == 3);
}

TEST_CASE("both sides of a diamond may run at once, and the shared input is built once") {
  farm f("top <- left, right; left <- bottom; right <- bottom");
  f.start();
  f.built("bottom");
  CHECK(f.placed == names{"bottom", "left", "right"});
  f.built("right");
  CHECK(f.placed.size() == 3);
  f.built("left");
  CHECK(f.placed.back() == "top");
}

TEST_CASE("a realised input that is not published yet is waited for, not rebuilt") {
  farm f("app <- lib");
  f.row("lib").phase = phase::realised;
  f.start();
  CHECK(f.acquired.empty());
  f.row("lib").published = true;
  f.run(f.p.on_rows({f.row("lib")}));
  CHECK(f.placed == names{"app"});
}

TEST_CASE("a failure ends the request, and its dependants are not attempted") {
  farm f("all <- app, other; app <- lib; lib; other");
  f.start();
  CHECK(f.placed == names{"other", "lib"});
  f.fails("lib");
  CHECK(f.over == request_state::failed);
  CHECK(f.state("lib") == step_state::failed);
  CHECK(f.state("app") == step_state::not_attempted);
  CHECK(f.p.failures().size() == 1);
  CHECK(f.p.failures()[0].log_tail == "boom");
  CHECK(f.released == names{"other"});
}

TEST_CASE("with keep_going a failure ends only what depends on it") {
  farm f("all <- app, other; app <- lib; lib; other", true);
  f.start();
  f.fails("lib");
  CHECK_FALSE(f.over);
  CHECK(f.told.at("app").failure == failure::dependency_failed);
  f.built("other");
  CHECK(f.over == request_state::failed);
  CHECK(f.p.counts().built == 1);
  CHECK(f.p.counts().failed == 1);
  CHECK(f.p.counts().not_attempted == 2);
}

TEST_CASE("a failure older than the request does not count against it") {
  farm f("app", false, {}, 6);
  f.row("app").failed = ledger::failure_record{failure::build_failed, {1}, 5, "old", ""};
  f.start();
  CHECK(f.acquired == names{"app"});
  CHECK_FALSE(f.over);
}

TEST_CASE("a lock held by another is waited for, and acquired when it falls free") {
  farm g("app");
  g.row("app").phase = phase::building;
  g.row("app").token = {7};
  g.start();
  CHECK(g.acquired == names{"app"});
  CHECK(g.placed.empty());
  CHECK(g.state("app") == step_state::building);
  g.row("app").phase = phase::free;
  g.run(g.p.on_rows({g.row("app")}));
  CHECK(g.acquired == names{"app", "app"});
}

TEST_CASE("a worker that died gives the step back, and it is placed again") {
  farm f("app");
  f.start();
  f.building("app");
  f.row("app").phase = phase::free;
  f.run(f.p.on_rows({f.row("app")}));
  CHECK(f.placed == names{"app", "app"});
  f.built("app");
  CHECK(f.over == request_state::succeeded);
}

TEST_CASE("after a try that came to nothing the step is tried again, each time later, up to a bound") {
  farm f("app");
  f.start();
  std::vector<std::int64_t> waits;
  for (std::uint32_t n = 1; n <= 9; ++n) {
    f.building("app");
    f.row("app").phase = phase::free;
    f.row("app").retries = n;
    f.run(f.p.on_rows({f.row("app")}));
    f.run(f.p.on_rows({f.row("app")})); // told again
    f.run(f.p.repeat());
    REQUIRE(f.delays.size() == n);
    CHECK(f.placed.size() == n);
    CHECK(f.told.at("app").state == step_state::queued);
    waits.push_back(f.delays.back().delay.count());
    f.run(f.p.on_retry(key_of("app"), {f.delays.back().token.value - 1})); // of an earlier one
    CHECK(f.placed.size() == n);
    f.run(f.p.on_retry(key_of("app"), f.delays.back().token));
    CHECK(f.placed.size() == n + 1);
  }
  CHECK(waits == std::vector<std::int64_t>{1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000});
  f.built("app");
  CHECK(f.over == request_state::succeeded);
}

TEST_CASE("a graph that begins anew waits before it tries what came to nothing before") {
  farm f("app <- lib");
  f.there("lib");
  f.row("app").retries = 2;
  f.start();
  CHECK(f.acquired.empty());
  REQUIRE(f.delays.size() == 1);
  CHECK(f.delays[0].delay == std::chrono::seconds(2));
  f.run(f.p.on_retry(key_of("app"), f.delays[0].token));
  CHECK(f.placed == names{"app"});
}

TEST_CASE("what another graph builds while this one waits out a delay is taken") {
  farm f("app");
  f.row("app").retries = 1;
  f.start();
  f.built("app");
  CHECK(f.over == request_state::succeeded);
  CHECK(f.placed.empty());
}

TEST_CASE("a failure that happened too often answers the request, and says how often and what helps") {
  farm f("top <- app, other; app; other", true);
  f.row("app").failed = ledger::failure_record{failure::timed_out, {1}, 2, "too long", "the end", 3, 1'000'000'000'000};
  f.start();
  CHECK(f.state("app") == step_state::failed);
  auto& told = f.told.at("app");
  CHECK(told.failure == failure::timed_out);
  CHECK(told.log_tail == "the end");
  CHECK(told.text.find("too long; failed 3 times, last at 2001-09-09 01:46:40 UTC") == 0);
  CHECK(told.text.find("coppice-admin forget-failure /nix/store/") != std::string::npos);
  CHECK(f.told.at("top").failure == failure::dependency_failed);
  f.built("other");
  CHECK(f.over == request_state::failed);
}

TEST_CASE("a build that was thought lost and came back takes the place of what was queued for it") {
  farm f("app");
  f.start();
  auto queued = f.row("app").token;
  auto& r = f.row("app");
  r.phase = phase::building;
  r.token = {++f.tokens};
  SECTION("reclaimed: nobody else need be found") {
    f.run(f.p.on_rows({r}));
    CHECK(f.released == names{"app"});
  }
  SECTION("started as it was placed") {
    r.origin = queued;
    f.run(f.p.on_rows({r}));
    CHECK(f.released.empty());
  }
  CHECK(f.state("app") == step_state::building);
  f.run(f.p.on_rows({r}));
  CHECK(f.released.size() <= 1);
}

TEST_CASE("what another graph holds is lent this request's priority, again and again") {
  farm f("app");
  f.row("app").phase = phase::queued;
  f.row("app").token = {3};
  f.start();
  auto once = f.lent.size();
  CHECK(once > 0);
  f.run(f.p.repeat());
  CHECK(f.lent.size() > once);
}

TEST_CASE("a change that was found by looking is lost unless it is told before the next look") {
  farm f("app <- lib");
  f.start();
  REQUIRE(f.placed == names{"lib"});
  auto building = f.row("lib");
  building.phase = phase::building;
  ++building.token.value;
  for (bool told : {true, false}) {
    ++building.token.value;
    f.p.on_looked({building});
    f.run(f.p.on_rows({building}));
    if (told) f.p.on_told(building);
    CHECK(f.p.take_lost() == (told ? 0 : 1));
  }
  f.p.on_looked({building}); // nothing new
  CHECK(f.p.take_lost() == 0);
}

TEST_CASE("what is placed again says so") {
  farm f("app");
  f.start();
  auto again = f.p.repeat();
  REQUIRE(again.size() == 1);
  CHECK(std::get<plan::place>(again[0]).again);
}

TEST_CASE("what vanished is built again before what lacked it is tried again") {
  farm f("top <- app; app <- lib; lib <- cc");
  f.there("lib").there("cc").start();
  CHECK(f.placed == names{"app"});
  f.vanish({"lib"}, "app");
  CHECK(f.released == names{"app"});
  CHECK(f.placed == names{"app", "lib"});
  CHECK(f.p.counts().reused == 1);
  f.built("lib");
  CHECK(f.placed == names{"app", "lib", "app"});
  f.built("app");
  f.built("top");
  CHECK(f.over == request_state::succeeded);
  CHECK(f.p.counts().total == 4);
  CHECK(f.p.counts().built == 3);
}

TEST_CASE("of all that vanished each is built again once, and what lacked it waits for the last") {
  farm f("app <- lib, png, zip; lib <- libc");
  f.there("lib").there("libc").there("png").there("zip").start();
  REQUIRE(f.placed == names{"app"});
  f.vanish({"libc", "png", "zip"}, "app");
  CHECK(std::set<std::string>(f.placed.begin() + 1, f.placed.end()) == std::set<std::string>{"libc", "png", "zip"});
  CHECK(f.placed.size() == 4);
  f.built("png");
  f.built("libc");
  CHECK(f.placed.size() == 4);
  f.built("zip");
  CHECK(f.placed.size() == 5);
  CHECK(f.placed.back() == "app");
  f.built("app");
  CHECK(f.over == request_state::succeeded);
  CHECK(f.p.counts().reused == 1);
}

TEST_CASE("what vanished from below an input is built again, although nobody named it") {
  farm f("app <- lib; lib <- libc");
  f.there("lib").there("libc").start();
  CHECK(f.state("libc") == step_state::planned); // nobody asked
  f.vanish({"libc"}, "app");
  CHECK(f.placed == names{"app", "libc"});
  f.built("libc");
  CHECK(f.placed == names{"app", "libc", "app"});
  f.built("app");
  CHECK(f.over == request_state::succeeded);
}

TEST_CASE("what was said to have vanished and is there is used") {
  farm f("app <- lib");
  f.there("lib").start();
  f.run(f.p.on_vanished(key_of("app"), {f.g.index.at("lib")})); // somebody else has built it again meanwhile
  CHECK(f.placed == names{"app", "app"});
  f.built("app");
  CHECK(f.p.counts().reused == 1);
  CHECK(f.p.counts().total == 2);
}

TEST_CASE("what vanished while its dependant was being built is waited for when that falls free") {
  farm f("top <- app, other; app <- lib; other <- lib");
  f.there("lib").start();
  f.building("app");
  f.vanish({"lib"}, "other");
  CHECK(f.placed == names{"app", "other", "lib"});
  f.row("app").phase = phase::free;
  f.run(f.p.on_rows({f.row("app")}));
  CHECK(f.placed == names{"app", "other", "lib"});
  f.built("lib");
  CHECK(std::set<std::string>(f.placed.begin() + 3, f.placed.end()) == std::set<std::string>{"app", "other"});
}

TEST_CASE("what vanished and cannot be built again fails what lacked it") {
  farm f("app <- lib; lib <- libc", true);
  f.there("lib").there("libc").start();
  f.vanish({"libc"}, "app");
  f.fails("libc");
  CHECK(f.state("app") == step_state::not_attempted);
  CHECK(f.over == request_state::failed);
}

TEST_CASE("a source that vanished makes its user's sources be looked up again") {
  graph g("app <- lib");
  plan p(g.nodes, {0}, {});
  std::vector<lock_state> rows(2);
  rows[0].key = key_of("app");
  rows[1].key = key_of("lib");
  rows[1].phase = phase::realised;
  rows[1].published = true;
  p.start();
  p.on_rows({rows[0]});
  p.on_rows({rows[1]});
  p.begin();
  auto out = p.on_vanished(key_of("app"), {});
  REQUIRE(out.size() == 1);
  CHECK(std::get<plan::discovered>(out[0]).wanted == std::vector<std::uint32_t>{0});
  p.begin({{0, "the source x is nowhere"}});
  CHECK(p.is_over());
  CHECK(p.failures().at(0).failure == failure::inputs_missing);
}

TEST_CASE("late news of an older token changes nothing") {
  farm f("app");
  f.start();
  f.building("app");
  auto old = f.row("app");
  old.token = {1};
  old.phase = phase::free;
  f.run(f.p.on_rows({old}));
  CHECK(f.placed == names{"app"});
  CHECK(f.state("app") == step_state::building);
}

TEST_CASE("two derivations with one inhash share one job") {
  farm f("all <- a, b=a; a");
  f.start();
  CHECK(f.placed.size() == 1);
  f.built("a");
  CHECK(f.placed == names{"a", "all"});
}

TEST_CASE("two derivations with one inhash: when the worker dies one of them tries again") {
  farm f("all <- a, b=a; a");
  f.start();
  f.building("a");
  f.row("a").phase = phase::free;
  f.run(f.p.on_rows({f.row("a")}));
  CHECK(f.placed.size() == 2);
  f.built("a");
  f.built("all");
  CHECK(f.over == request_state::succeeded);
}

TEST_CASE("what no machine can take waits, with the reason, and is built once one can") {
  farm f("all <- app, other");
  f.start();
  f.run(f.p.on_unplaceable(key_of("app"), "no machine has system 'riscv64-linux'"));
  CHECK(f.told.at("app").state == step_state::queued);
  CHECK(f.told.at("app").text == "no machine has system 'riscv64-linux'");
  CHECK(f.released.empty());
  f.built("other");
  CHECK_FALSE(f.over);
  f.run(f.p.on_unplaceable(key_of("app"), ""));
  CHECK(f.told.at("app").text.empty());
  f.building("app");
  f.built("app");
  f.built("all");
  CHECK(f.over == request_state::succeeded);
}

TEST_CASE("a step tells what it waits for, and what failed it") {
  farm f("all <- a, b; a <- c", true);
  f.start();
  CHECK(f.p.lacking(f.g.index.at("all")).size() == 2);
  CHECK(f.p.life_of(f.g.index.at("a")) == step_life::wanted);
  f.built("c");
  CHECK(f.p.lacking(f.g.index.at("a")).empty());
  f.built("a");
  CHECK(f.p.lacking(f.g.index.at("all")) == std::vector<std::uint32_t>{f.g.index.at("b")});
}

TEST_CASE("if so told, what no machine can take fails at once, with the reason, and gives its lock back") {
  farm f("all <- app, other", true, {}, 5, true);
  f.start();
  f.run(f.p.on_unplaceable(key_of("app"), "no machine has system 'riscv64-linux'"));
  CHECK(f.told.at("app").failure == failure::unplaceable);
  CHECK(f.released == names{"app"});
  f.built("other");
  CHECK(f.over == request_state::failed);
}

TEST_CASE("even then, what a machine could take that is offline waits for it") {
  farm f("all <- app, other", true, {}, 5, true);
  f.start();
  f.run(f.p.on_unplaceable(key_of("app"), "no machine has it; oak could, and is offline", true));
  CHECK(f.told.at("app").state == step_state::queued);
  CHECK(f.told.at("app").text == "no machine has it; oak could, and is offline");
  CHECK(f.released.empty());
}

TEST_CASE("a lock that is granted after the end is given back") {
  graph g("all <- a, b; a; b");
  plan p(g.nodes, {0}, {});
  auto rows = [&](phase ph) {
    std::vector<lock_state> r;
    for (auto& n : g.nodes) {
      r.emplace_back();
      r.back().key = n.key;
      r.back().phase = ph;
    }
    return r;
  };
  p.start();
  p.on_rows(rows(phase::free));
  p.begin();
  p.on_granted(key_of("a"), {1});
  p.stop();
  auto late = p.on_granted(key_of("b"), {2});
  REQUIRE(late.size() == 1);
  CHECK(std::get<plan::release>(late[0]).token == fence{2});
}

TEST_CASE("a refused derivation fails without a lock") {
  graph g("app <- weird");
  g.nodes[g.index.at("weird")].refused = "floating content-addressed outputs are not supported";
  plan p(g.nodes, {0}, {});
  p.start();
  std::vector<lock_state> rows(2);
  rows[0].key = key_of("app");
  rows[1].key = key_of("weird");
  p.on_rows(rows);
  auto out = p.begin();
  CHECK(p.is_over());
  CHECK(p.failures()[0].failure == failure::unsupported);
}

TEST_CASE("the longest way to a root is the critical path") {
  graph g("top <- a, z; a <- b; b <- z");
  plan p(g.nodes, {0}, {});
  CHECK(p.critical_path(g.index.at("top")) == 0);
  CHECK(p.critical_path(g.index.at("z")) == 3);
}

TEST_CASE("whatever order news come in, and however often, every wanted step is built once and the request ends") {
  auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  for (int round = 0; round < 200; ++round) {
    std::string text = "n0";
    for (int i = 1; i < 30; ++i) {
      // each node is wanted by some earlier one
      text += "; n" + std::to_string(rng() % static_cast<unsigned>(i)) + " <- n" + std::to_string(i);
    }
    farm f(text, rng() % 2 == 0);
    for (int i = 1; i < 30; ++i)
      if (rng() % 5 == 0) f.there("n" + std::to_string(i));
    f.start();
    std::map<std::string, int> builds;
    for (int steps = 0; !f.over && steps < 2000; ++steps) {
      std::set<std::string> can;
      for (auto& n : f.placed)
        if (f.state(n) == step_state::queued) can.insert(n);
      if (can.empty()) break;
      auto n = *std::next(can.begin(), static_cast<std::ptrdiff_t>(rng() % can.size()));
      ++builds[n];
      f.built(n);
      for (auto& [k, r] : f.rows)
        if (rng() % 3 == 0) f.run(f.p.on_rows({r})); // repeated news
      if (rng() % 10 == 0) f.run(f.p.repeat());
      if (rng() % 10 != 0) continue;
      auto lost = "n" + std::to_string(1 + rng() % 29), user = "n" + std::to_string(rng() % 30);
      if (f.row(lost).phase != phase::realised || f.g.below(user, lost)) continue;
      builds.erase(lost);
      f.vanish({lost}, user);
    }
    CHECK(f.over == request_state::succeeded);
    for (auto& [n, count] : builds) CHECK(count == 1);
    auto& c = f.p.counts();
    CHECK(c.planned + c.queued + c.building == 0);
    CHECK(c.total == c.built + c.reused);
  }
}
