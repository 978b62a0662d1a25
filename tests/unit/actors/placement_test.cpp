#include "actors/place/placement.hpp"
#include "tests/support/seed.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

using time_point = placement::time_point;

inhash key_of(const std::string& name) {
  inhash k;
  for (std::size_t i = 0; i < name.size() && i < 32; ++i)
    k.bytes[i] = static_cast<std::uint8_t>(name[i]);
  return k;
}

job job_of(const std::string& name, std::uint64_t token = 1, std::int32_t priority = 0, std::uint32_t critical = 0) {
  job j;
  j.key = key_of(name);
  j.token = {token};
  j.system = "x86_64-linux";
  j.priority = priority;
  j.critical_path = critical;
  return j;
}

offer offer_of(const std::string& node, std::uint32_t slots, std::vector<std::string> features = {},
               std::string system = "x86_64-linux") {
  return {{node}, {1}, slots, slots, {std::move(system)}, std::move(features)};
}

/// As its graph places it when it has not heard of it for a while.
job repeated(const std::string& name) {
  auto j = job_of(name);
  j.again = true;
  return j;
}

/// A placement with a clock, and what it said.
struct bench {
  placement p{placement::options{}};
  time_point now{1h};
  std::vector<std::pair<std::string, std::string>> assigned, rechecked; ///< node, job
  std::vector<std::string> told;
  bool told_offline = false; ///< a machine could that is offline, the last of `told` said

  static std::string name_of(const inhash& k) {
    std::string s;
    for (auto b : k.bytes)
      if (b) s += static_cast<char>(b);
    return s;
  }
  void take(placement::effects& out) {
    for (auto& e : out) {
      if (auto* a = std::get_if<placement::assign>(&e)) assigned.emplace_back(a->node.value, name_of(a->job.key));
      if (auto* r = std::get_if<placement::recheck>(&e)) rechecked.emplace_back(r->node.value, name_of(r->job.key));
      if (auto* u = std::get_if<placement::unplaceable>(&e)) {
        told.push_back(name_of(u->key) + ": " + u->why);
        told_offline = u->offline;
      }
    }
    out.clear();
  }
  bool add(const job& j) {
    placement::effects out;
    bool ok = p.add(j, now, out);
    take(out);
    return ok;
  }
  void offers(const offer& o) {
    placement::effects out;
    p.on_offer(o, now, out);
    take(out);
  }
  void refused(const std::string& node, const std::string& name, std::uint64_t token = 1, bool full = true) {
    placement::effects out;
    p.on_refused(key_of(name), {token}, {node}, full, now, out);
    take(out);
  }
  void lost(const std::string& name) {
    placement::effects out;
    p.on_lost(job_of(name), now, out);
    take(out);
  }
  void took(const std::string& name, std::uint64_t token = 1, bool fresh = true) {
    p.on_assigned(key_of(name), {token}, fresh, now);
  }
  void pass(std::chrono::milliseconds d) {
    now += d;
    placement::effects out;
    p.tick(now, out);
    take(out);
  }
  std::vector<std::string> jobs() const {
    std::vector<std::string> names;
    for (auto& [node, name] : assigned)
      names.push_back(name);
    return names;
  }
};

using names = std::vector<std::string>;

/// With as many cores as slots; one build takes one core, one that requires "big" all of them.
offer shared_offer(const std::string& node, std::uint32_t cores, std::uint32_t left) {
  auto o = offer_of(node, cores, {"big"});
  o.slots_free = left;
  o.busy = cores - left;
  o.share = {{cores, 1'000, 1'000}, {left, 1'000, 1'000}, {1, 100, 10}, {{"big", {cores, 100, 10}}}};
  return o;
}
job big_job(const std::string& name, std::uint32_t critical = 0) {
  auto j = job_of(name, 1, 0, critical);
  j.features = {"big"};
  return j;
}

} // namespace

TEST_CASE("jobs wait until a machine with a free slot offers itself") {
  bench b;
  b.add(job_of("a"));
  CHECK(b.assigned.empty());
  CHECK(b.p.waiting() == 1);
  b.offers(offer_of("oak", 0));
  CHECK(b.assigned.empty());
  b.offers(offer_of("oak", 1));
  CHECK(b.assigned == std::vector<std::pair<std::string, std::string>>{{"oak", "a"}});
  CHECK(b.p.waiting() == 0);
}

TEST_CASE("the order is priority, then critical path, then age") {
  bench b;
  b.add(job_of("old"));
  b.add(job_of("young"));
  b.add(job_of("long", 1, 0, 9));
  b.add(job_of("urgent", 1, 5));
  b.add(job_of("urgent-and-long", 1, 5, 2));
  b.offers(offer_of("oak", 5));
  CHECK(b.jobs() == names{"urgent-and-long", "urgent", "long", "old", "young"});
}

TEST_CASE("late binding: what comes later and is more urgent takes the slot that becomes free") {
  bench b;
  b.offers(offer_of("oak", 1));
  b.add(job_of("first"));
  b.add(job_of("second"));
  b.add(job_of("urgent", 1, 9));
  CHECK(b.jobs() == names{"first"});
  b.took("first", 1);
  b.offers(offer_of("oak", 1));
  CHECK(b.jobs() == names{"first", "urgent"});
}

TEST_CASE("an offer knows nothing of assignments that are not answered yet") {
  bench b;
  b.offers(offer_of("oak", 2));
  for (auto name : {"a", "b", "c", "d"})
    b.add(job_of(name));
  REQUIRE(b.jobs() == names{"a", "b"});
  b.took("a", 1);
  b.offers(offer_of("oak", 2)); // "a" is there and one more slot became free; "b" is on its way
  CHECK(b.jobs() == names{"a", "b", "c"});
  b.took("b", 1);
  b.took("c", 1);
  b.offers(offer_of("oak", 1));
  CHECK(b.jobs() == names{"a", "b", "c", "d"});
}

TEST_CASE("builds spread over the machines") {
  bench b;
  b.offers(offer_of("ash", 2));
  b.offers(offer_of("oak", 2));
  b.add(job_of("a"));
  b.add(job_of("b"));
  CHECK(b.assigned[0].first != b.assigned[1].first);
}

TEST_CASE("a job goes only to a machine with its system and features") {
  bench b;
  b.offers(offer_of("arm", 4, {"kvm"}, "aarch64-linux"));
  b.offers(offer_of("plain", 4));
  b.offers(offer_of("big", 1, {"kvm", "big"}));
  auto j = job_of("vm");
  j.features = {"kvm", "big"};
  b.add(j);
  CHECK(b.assigned == std::vector<std::pair<std::string, std::string>>{{"big", "vm"}});
}

TEST_CASE("jobs that wait for network or disk never take a slot of those that compute, nor the other way round") {
  bench b;
  auto fetch = job_of("fetch", 1, 100);
  fetch.io_bound = true;
  b.add(fetch);
  b.add(job_of("compile"));
  b.add(job_of("compile too"));
  auto o = offer_of("oak", 1);
  b.offers(o);
  CHECK(b.jobs() == names{"compile"});
  o.slots_free = 0;
  o.io_slots_free = o.io_slots = 4;
  b.offers(o);
  CHECK(b.jobs() == names{"compile", "fetch"});
  CHECK(b.p.slots_free(true) == 3);
  CHECK(b.p.waiting() == 1);
}

TEST_CASE("the order holds among jobs of a kind, and a full kind does not hold up the other") {
  bench b;
  for (auto* name : {"f1", "f2", "f3"}) {
    auto j = job_of(name);
    j.io_bound = true;
    b.add(j);
  }
  b.add(job_of("c"));
  auto o = offer_of("oak", 2);
  o.io_slots_free = 2;
  b.offers(o);
  auto jobs = b.jobs();
  std::sort(jobs.begin(), jobs.end());
  CHECK(jobs == names{"c", "f1", "f2"});
}

TEST_CASE("a machine that refused an I/O job is not asked again before its next offer") {
  bench b;
  auto j = job_of("f");
  j.io_bound = true;
  b.add(j);
  auto o = offer_of("oak", 0);
  o.io_slots_free = 2;
  b.offers(o);
  b.refused("oak", "f");
  CHECK(b.assigned.size() == 1);
  CHECK(b.p.waiting() == 1);
  b.offers(o);
  CHECK(b.assigned.size() == 2);
}

TEST_CASE("why machines hold slots back is told while something waits") {
  bench b;
  auto o = offer_of("oak", 0);
  o.short_of = "has 5 bytes of disk left";
  b.offers(o);
  CHECK(b.p.shortage().empty());
  b.add(job_of("a"));
  CHECK(b.p.shortage() == "oak has 5 bytes of disk left");
  b.offers(offer_of("oak", 1));
  CHECK(b.p.shortage().empty());
}

TEST_CASE("a job that fits nowhere does not hold up those behind it") {
  bench b;
  auto j = job_of("vm", 1, 100);
  j.features = {"kvm"};
  b.add(j);
  b.add(job_of("a"));
  b.offers(offer_of("oak", 1));
  CHECK(b.jobs() == names{"a"});
}

TEST_CASE("a refused job goes back, and not to the same machine before its next offer") {
  bench b;
  b.offers(offer_of("oak", 2));
  b.add(job_of("a"));
  b.refused("oak", "a");
  CHECK(b.jobs() == names{"a"});
  CHECK(b.p.waiting() == 1);
  b.offers(offer_of("oak", 1));
  CHECK(b.jobs() == names{"a", "a"});
}

TEST_CASE("a machine that refused one job for that job's sake takes the next at once, and that one by its next offer") {
  bench b;
  b.offers(offer_of("a", 1));
  b.add(job_of("urgent", 1, 5));
  b.add(job_of("next"));
  REQUIRE(b.assigned.size() == 1);
  b.refused("a", "urgent", 1, false);
  REQUIRE(b.assigned.size() == 2);
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"a", "next"});
  b.took("next", 1);
  b.pass(1s);
  CHECK(b.assigned.size() == 2);
  b.offers(offer_of("a", 1));
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"a", "urgent"});
}

TEST_CASE("a refused job goes to another machine at once") {
  bench b;
  b.offers(offer_of("ash", 1));
  b.add(job_of("a"));
  b.offers(offer_of("oak", 1));
  b.refused("ash", "a");
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"oak", "a"});
}

TEST_CASE("a late refusal by one machine does not take the job from the next") {
  bench b;
  b.offers(offer_of("ash", 1));
  b.add(job_of("a"));
  b.offers(offer_of("oak", 1));
  b.pass(11s); // void: to oak
  REQUIRE(b.assigned.back().first == "oak");
  b.refused("ash", "a");
  CHECK(b.p.waiting() == 0);
  CHECK(b.assigned.size() == 2);
}

TEST_CASE("an offer that is not repeated expires") {
  bench b;
  b.offers(offer_of("oak", 1));
  b.pass(16s);
  CHECK(b.p.slots_free(false) == 0);
  b.add(job_of("a"));
  CHECK(b.assigned.empty());
}

TEST_CASE("what a machine was told that is gone goes elsewhere at once, and nothing more to it until it is heard") {
  bench b;
  b.offers(offer_of("elm", 3));
  b.offers(offer_of("oak", 1));
  b.add(job_of("a"));
  CHECK(b.assigned.back().first == "elm");
  placement::effects out;
  b.p.on_gone({"elm"}, b.now, out);
  b.take(out);
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"oak", "a"});
  b.add(job_of("b"));
  CHECK(b.jobs() == names{"a", "a"});
  b.offers(offer_of("elm", 3));
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"elm", "b"});
}

TEST_CASE("a machine that was known before is offline until it offers itself, and is forgotten in the end") {
  bench b;
  b.now += 60 * 24h;
  auto online = [&](const std::string& node) {
    for (auto& row : b.p.machines(b.now).rows)
      if (row.what.node.value == node) return std::optional{row.online};
    return std::optional<bool>{};
  };
  b.offers(offer_of("elm", 1));
  const auto comings = b.p.comings();
  b.p.remember(offer_of("oak", 1), b.now - 24h);
  b.p.remember(offer_of("elm", 1), b.now - 24h);
  CHECK(online("oak") == false);
  CHECK(online("elm") == true);
  CHECK(b.p.comings() == comings); // nothing that the file does not know
  CHECK(b.p.machines(b.now).rows.back().heard_ms == 24 * 3'600'000);
  b.add(job_of("a"));
  b.add(job_of("b"));
  CHECK(b.assigned.size() == 1); // elm's slot; oak is given nothing
  b.offers(offer_of("oak", 1));
  CHECK(online("oak") == true);
  CHECK(b.p.comings() == comings + 1);
  b.pass(31 * 24h);
  CHECK_FALSE(online("oak"));
  CHECK(b.p.comings() > comings + 2);
}

TEST_CASE("what only a machine could take that is offline is told so, and what none could, is told that") {
  bench b;
  auto j = job_of("vm");
  j.features = {"kvm"};
  b.p.remember(offer_of("oak", 1, {"kvm"}), b.now - 1h);
  b.offers(offer_of("elm", 1));
  b.add(j);
  REQUIRE(b.told.size() == 1);
  CHECK(b.told[0] == "vm: no machine can build it: elm has no feature 'kvm'; oak could, and is offline");
  CHECK(b.told_offline);
  b.pass(10s);
  b.offers(offer_of("elm", 1));
  b.offers(offer_of("oak", 0, {"kvm"}));
  CHECK(b.told.back() == "vm: ");
  CHECK_FALSE(b.told_offline);
  auto other = job_of("ufo");
  other.features = {"warp"};
  b.add(other);
  CHECK_FALSE(b.told_offline);
}

TEST_CASE("a machine without an offer is shown as offline since then, and only the latest of them are remembered") {
  bench b;
  placement::options few;
  few.offline_max = 1;
  b.p = placement{few};
  b.offers(offer_of("elm", 1));
  b.pass(1s);
  b.offers(offer_of("oak", 1));
  b.pass(1s);
  CHECK(b.p.machines(b.now).rows.size() == 2);
  CHECK(b.p.machines(b.now).rows[0].since_ms == 2'000);
  b.pass(14s); // oak's is 15 s old
  b.pass(5s);
  auto rows = b.p.machines(b.now).rows;
  REQUIRE(rows.size() == 1);
  CHECK((rows[0].what.node.value == "oak" && !rows[0].online && rows[0].heard_ms == 20'000 && rows[0].since_ms == 0));
  CHECK(b.p.explain({key_of("a"), "x86_64-linux", {}, false}, b.now).machines[0].why == "is offline");
  b.offers(offer_of("oak", 1));
  rows = b.p.machines(b.now).rows;
  CHECK((rows.size() == 1 && rows[0].online && rows[0].since_ms == 0));
}

TEST_CASE("a machine with mandatory features takes only jobs that require all of them") {
  bench b;
  auto elm = offer_of("elm", 2, {"kvm", "slow"});
  elm.mandatory_features = {"slow"};
  b.offers(elm);
  b.add(job_of("plain"));
  CHECK(b.told == names{"plain: no machine can build it: elm takes only what requires feature 'slow'"});
  auto slow = job_of("slow");
  slow.features = {"slow", "kvm"};
  b.add(slow);
  CHECK(b.jobs() == names{"slow"});
}

TEST_CASE("a repeated offer does not expire") {
  bench b;
  for (int i = 0; i < 6; ++i) {
    b.offers(offer_of("oak", 1));
    b.pass(5s);
  }
  b.add(job_of("a"));
  CHECK(b.jobs() == names{"a"});
}

TEST_CASE("an assignment that nobody answers is placed anew") {
  bench b;
  b.offers(offer_of("oak", 1));
  b.add(job_of("a"));
  b.pass(9s);
  b.offers(offer_of("oak", 1));
  CHECK(b.jobs() == names{"a"});
  b.pass(2s);
  CHECK(b.jobs() == names{"a", "a"});
  CHECK(b.p.corrections() == 1);
}

TEST_CASE("a job whose machine is still busy fetching its inputs is not placed twice") {
  bench b;
  b.offers(offer_of("oak", 2));
  b.add(job_of("a"));
  b.took("a");
  b.add(repeated("a"));
  CHECK(b.rechecked == std::vector<std::pair<std::string, std::string>>{{"oak", "a"}});
  b.took("a", 1, false);
  CHECK(b.jobs() == names{"a"});
  CHECK(b.p.slots_free(false) == 1);
  CHECK(b.p.corrections() == 0);
}

TEST_CASE("a job that its machine took and does not know of is begun there when it is repeated, and counted") {
  bench b;
  b.offers(offer_of("oak", 2));
  b.add(job_of("a"));
  b.took("a");
  b.add(repeated("a"));
  b.took("a"); // there was none, now there is
  CHECK(b.jobs() == names{"a"});
  CHECK(b.p.corrections() == 1);
}

TEST_CASE("a job that its machine took, lost, and has no room for is placed elsewhere, and counted") {
  bench b;
  b.offers(offer_of("ash", 1));
  b.add(job_of("a"));
  b.took("a");
  b.add(repeated("a"));
  b.offers(offer_of("oak", 1));
  b.lost("a");
  b.took("a");
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"oak", "a"});
  CHECK(b.p.corrections() == 1);
}

TEST_CASE("a job that was placed before an allocator died is counted when its graph repeats it") {
  bench b;
  b.offers(offer_of("oak", 1));
  b.add(repeated("a"));
  b.took("a");
  CHECK(b.p.corrections() == 1);
}

TEST_CASE("whatever word is lost, a job beside a free slot is assigned within the bound") {
  enum class loss { nothing, place, offer, assign, answer, allocator, worker };
  for (auto lost : {loss::nothing, loss::place, loss::offer, loss::assign, loss::answer, loss::allocator, loss::worker}) {
    CAPTURE(static_cast<int>(lost));
    bench b;
    std::optional<time_point> running, due;
    bool told = false;
    const auto end = b.now + 60s;
    for (int second = 0; b.now < end; ++second) {
      const bool first = !due && second >= 7; // it becomes runnable, between two repetitions
      if (first) due = b.now;
      const bool repeats = due && !running && second % 5 == 0;
      if (!(lost == loss::offer && first) && (first || second % 5 == 0)) b.offers(offer_of("oak", running ? 0 : 1));
      if ((first && lost != loss::place) || repeats) b.add(first ? job_of("a") : repeated("a"));
      if (first && lost == loss::allocator) {
        b.p = placement{placement::options{}};
        b.assigned.clear(); // what it had on its lips, too
      }
      const auto asked = std::exchange(b.assigned, {}).size() + std::exchange(b.rechecked, {}).size();
      if (asked > 0 && (told || (lost != loss::assign && lost != loss::answer && lost != loss::worker))) {
        b.took("a", 1, !running);
        if (!running) running = b.now;
      }
      if (asked > 0 && !told && lost == loss::worker) b.took("a"); // it dies before it says anything
      if (asked > 0) told = true;
      b.pass(1s);
    }
    REQUIRE(running);
    CHECK(*running - *due <= placement::assigned_within);
    CHECK(b.p.corrections() == (lost == loss::nothing || lost == loss::offer ? 0 : 1));
  }
}

TEST_CASE("an assignment that was taken is not placed anew") {
  bench b;
  b.offers(offer_of("oak", 1));
  b.add(job_of("a"));
  b.took("a", 1);
  b.offers(offer_of("oak", 1));
  b.pass(12s);
  CHECK(b.jobs() == names{"a"});
  CHECK(b.p.assigned() == 0);
}

TEST_CASE("adding a job again changes nothing") {
  bench b;
  b.add(job_of("a"));
  b.add(job_of("b"));
  b.add(job_of("a"));
  CHECK(b.p.waiting() == 2);
  b.offers(offer_of("oak", 3));
  b.add(job_of("a"));
  CHECK(b.jobs() == names{"a", "b"}); // its age, too, is as it was
}

TEST_CASE("adding a job again lends it a higher priority, never a lower one") {
  bench b;
  b.add(job_of("a", 1, 3));
  b.add(job_of("b", 1, 4));
  b.add(job_of("a", 1, 7));
  b.add(job_of("a", 1, 1));
  b.offers(offer_of("oak", 2));
  CHECK(b.jobs() == names{"a", "b"});
}

TEST_CASE("a job under a newer token takes the place of the older one, and an older one is void") {
  bench b;
  b.offers(offer_of("oak", 1));
  b.add(job_of("a", 2));
  CHECK(b.p.assigned() == 1);
  b.add(job_of("a", 3));
  CHECK(b.p.waiting() == 1);
  b.add(job_of("a", 1));
  b.took("a", 2); // late
  CHECK(b.p.waiting() == 1);
  b.offers(offer_of("oak", 1));
  CHECK(b.assigned.size() == 2);
}

TEST_CASE("a withdrawn job is not placed; a withdrawal under an older token is void") {
  bench b;
  b.add(job_of("a", 5));
  b.p.remove(key_of("a"), {4});
  CHECK(b.p.waiting() == 1);
  b.p.remove(key_of("a"), {5});
  b.p.remove(key_of("a"), {5});
  b.offers(offer_of("oak", 1));
  CHECK(b.assigned.empty());
}

TEST_CASE("what no machine can ever build is told once, with what each machine lacks") {
  bench b;
  b.offers(offer_of("arm", 1, {}, "aarch64-linux"));
  b.offers(offer_of("oak", 1));
  auto j = job_of("vm");
  j.features = {"kvm"};
  b.add(j);
  b.offers(offer_of("oak", 1));
  b.pass(1s);
  CHECK(b.told == names{"vm: no machine can build it: arm has no system 'x86_64-linux'; oak has no feature 'kvm'"});
}

TEST_CASE("who asks again for what cannot be placed is told again, since the first answer may be lost") {
  bench b;
  b.offers(offer_of("oak", 1));
  auto j = job_of("vm");
  j.features = {"kvm"};
  b.add(j);
  b.add(j);
  CHECK(b.told.size() == 2);
}

TEST_CASE("without machines nothing is unplaceable, and a busy machine that fits is enough") {
  bench b;
  b.add(job_of("a"));
  CHECK(b.told.empty());
  b.offers(offer_of("oak", 0));
  CHECK(b.told.empty());
}

TEST_CASE("a job that waits becomes unplaceable when a machine says it lost the feature") {
  bench b;
  auto j = job_of("vm");
  j.features = {"kvm"};
  b.offers(offer_of("oak", 0, {"kvm"}));
  b.add(j);
  b.offers(offer_of("oak", 0));
  CHECK(b.told.size() == 1);
}

TEST_CASE("a job that no machine could take is told when one that could offers itself, busy or not") {
  bench b;
  auto j = job_of("vm");
  j.features = {"kvm"};
  b.offers(offer_of("oak", 1));
  b.add(j);
  REQUIRE(b.told.size() == 1);
  b.offers(offer_of("elm", 0, {"kvm"}));
  CHECK(b.told.back() == "vm: ");
  b.offers(offer_of("elm", 0, {"kvm"}));
  CHECK(b.told.size() == 2);
}

TEST_CASE("the queue is shown in its order, in pages, with the reason of each") {
  bench b;
  b.offers(offer_of("oak", 0));
  b.add(job_of("a"));
  auto vm = job_of("vm", 1, 3);
  vm.features = {"kvm"};
  b.add(vm);
  auto fetch = job_of("fetch", 1, 1);
  fetch.io_bound = true;
  b.add(fetch);
  b.add(job_of("b"));
  b.now += 7s;
  auto all = b.p.page({0, 100}, b.now);
  CHECK(all.total == 4);
  REQUIRE(all.rows.size() == 4);
  names order;
  for (auto& row : all.rows) order.push_back(bench::name_of(row.key));
  CHECK(order == names{"vm", "fetch", "a", "b"});
  CHECK(all.rows[0].why.find("oak has no feature 'kvm'") == 0);
  CHECK(all.rows[2].why.find("oak has no free slot") == 0);
  CHECK(all.rows[3].position == 3); // of those that compute
  CHECK(all.rows[1].position == 1); // of those that wait for network or disk
  CHECK(all.rows[3].waiting_ms == 7000);
  auto page = b.p.page({2, 1}, b.now);
  REQUIRE(page.rows.size() == 1);
  CHECK(page.rows[0] == all.rows[2]);
}

TEST_CASE("the next page of the queue begins behind the last job seen, even if that and others are gone") {
  bench b;
  for (auto name : {"a", "b", "c", "d"}) b.add(job_of(name));
  auto first = b.p.page({0, 2}, b.now);
  REQUIRE(first.rows.size() == 2);
  auto& last = first.rows.back();
  for (auto name : {"a", "b"}) b.p.remove(key_of(name), {1});
  b.add(job_of("urgent", 1, 9));
  auto next = b.p.page({0, 2, queue_place{last.priority, last.critical_path, last.age, last.key}}, b.now);
  REQUIRE(next.rows.size() == 2);
  CHECK(bench::name_of(next.rows[0].key) == "c");
  CHECK(next.rows[0].position == 2); // the urgent one is first
  CHECK(bench::name_of(next.rows[1].key) == "d");
}

TEST_CASE("who asks hears what is ahead of a job and why each machine does not take it") {
  bench b;
  auto full = offer_of("oak", 0);
  full.short_of = "is drained: new disks";
  b.offers(full);
  b.offers(offer_of("pine", 0));
  auto foreign = offer_of("yew", 1);
  foreign.systems = {"aarch64-linux"};
  b.offers(foreign);
  for (auto name : {"x", "y", "z"}) b.add(job_of(name));
  auto j = job_of("z");
  auto p = b.p.explain({j.key, j.system, j.features, j.io_bound}, b.now);
  REQUIRE(p.job);
  CHECK(p.job->position == 3);
  CHECK(p.total == 3);
  REQUIRE(p.ahead.size() == 2);
  CHECK(bench::name_of(p.ahead[0].key) == "x");
  REQUIRE(p.machines.size() == 3);
  CHECK(p.machines[0] == machine_reason{{"oak"}, "is drained: new disks"});
  CHECK(p.machines[1].why.find("has no free slot") == 0);
  CHECK(p.machines[2].why == "has no system '" + j.system + "'");
}

TEST_CASE("a job is lent the priority of whoever else wants it, and keeps it when it is placed again") {
  bench b;
  b.add(job_of("old", 1, 0));
  b.add(job_of("shared", 1, -5));
  b.p.lend(key_of("shared"), 7);
  b.p.lend(key_of("old"), -9); // less than it has
  b.p.lend(key_of("nowhere"), 7);
  b.add(job_of("shared", 1, -5));
  b.offers(offer_of("oak", 2));
  CHECK(b.jobs() == names{"shared", "old"});
}

TEST_CASE("beyond jobs_max a new job is refused, a known one is not") {
  placement::options o;
  o.jobs_max = 2;
  bench b;
  b.p = placement{o};
  CHECK(b.add(job_of("a")));
  CHECK(b.add(job_of("b")));
  CHECK_FALSE(b.add(job_of("c")));
  CHECK(b.add(job_of("b")));
}

// Machines that lose answers, are busy, come and go; graphs that repeat, withdraw and ask under newer tokens.
TEST_CASE("a build that takes all cores goes where they are free, and nothing goes beside it") {
  bench b;
  b.add(big_job("wide", 9));
  b.add(job_of("a"));
  b.offers(shared_offer("oak", 4, 3));
  CHECK(b.jobs() == names{"a"});
  b.offers(shared_offer("elm", 4, 4));
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"elm", "wide"});
  b.add(job_of("b"));
  b.add(job_of("c"));
  b.add(job_of("d"));
  b.add(job_of("e"));
  CHECK(b.assigned.size() == 4);       // two more on oak: what elm was given is counted before it offers again
  b.offers(shared_offer("elm", 4, 4)); // made before it heard of it
  CHECK(b.assigned.size() == 4);
  b.refused("elm", "wide", 1, false);
  CHECK(b.assigned.size() == 6);
}

TEST_CASE("memory and disk are counted as cores are") {
  for (bool disk : {false, true}) {
    bench b;
    auto o = shared_offer("oak", 8, 8);
    (disk ? o.share.each.disk_bytes : o.share.each.memory_bytes) = 400;
    b.offers(o);
    for (auto name : {"a", "b", "c"})
      b.add(job_of(name));
    CHECK(b.jobs() == names{"a", "b"});
    auto why = b.p.explain({key_of("c"), "x86_64-linux", {}, false}, b.now).machines.at(0).why;
    CHECK(why.find(disk ? "MiB of disk left" : "MiB of memory left") != std::string::npos);
  }
}

TEST_CASE("why a build that takes more than is left waits is told with figures") {
  bench b;
  b.offers(shared_offer("oak", 4, 1));
  b.add(big_job("wide"));
  CHECK(b.p.page({}, b.now).rows.at(0).why == "oak has 1 of 4 cores left, and this build takes 4");
  b.offers(shared_offer("oak", 4, 0));
  CHECK(b.p.page({}, b.now).rows.at(0).why == "oak has no free slot (4)");
}

TEST_CASE("what takes more than any machine has is unplaceable, and told so") {
  bench b;
  auto o = shared_offer("oak", 4, 4);
  o.share.special = {{"big", {4, 2'000'000'000, 10}}};
  b.offers(o);
  b.add(big_job("wide"));
  REQUIRE(b.told.size() == 1);
  CHECK(b.told[0].find("MiB of memory left, and this build takes 1907") != std::string::npos);
}

TEST_CASE("a large build is overtaken by small ones for so long, then a machine is kept for it") {
  bench b;
  const auto most = placement::options{}.overtaken_max;
  std::uint32_t running = 3;
  b.add(big_job("wide", 9));
  b.offers(shared_offer("oak", 4, 4 - running));
  int small = 0;
  // one build ends each second, and another one waits already
  for (auto passed = 0s; passed <= most + 10s; passed += 1s) {
    const auto before = b.assigned.size();
    b.add(job_of("s" + std::to_string(small)));
    if (b.assigned.size() > before) {
      b.took("s" + std::to_string(small++));
      ++running;
    }
    b.pass(1s);
    if (running > 0) --running;
    b.offers(shared_offer("oak", 4, 4 - running));
    if (b.assigned.back().second == "wide") break;
  }
  CHECK(b.assigned.back().second == "wide");
  CHECK(small >= 59);
  CHECK(small <= 62);
}

TEST_CASE("the machine that is kept for a large build stays the same, says so, and only for what computes") {
  bench b;
  b.offers(shared_offer("oak", 4, 3));
  b.offers(shared_offer("elm", 4, 2));
  b.add(big_job("wide", 9));
  b.add(job_of("a"));
  CHECK(b.jobs() == names{"a"}); // wide has been overtaken
  b.took("a");
  const auto offers = [&](std::uint32_t oak, std::uint32_t elm) {
    b.offers(shared_offer("oak", 4, oak));
    b.offers(shared_offer("elm", 4, elm));
  };
  for (int i = 0; i < 61; ++i) {
    b.pass(1s);
    offers(0, 0);
  }
  offers(2, 1);
  b.add(job_of("b"));
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"elm", "b"}); // oak is kept: more of it is free
  b.took("b");
  offers(1, 3); // not even now
  b.add(job_of("c"));
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"elm", "c"});
  auto all = b.p.explain({key_of("d"), "x86_64-linux", {}, false}, b.now);
  CHECK(all.machines.at(1).why.find("is kept for a larger build") != std::string::npos);
  auto io = job_of("io");
  io.io_bound = true;
  auto oak = shared_offer("oak", 4, 1);
  oak.io_slots = oak.io_slots_free = 1;
  b.offers(oak);
  b.add(io);
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"oak", "io"});
  b.took("io");
  offers(4, 0);
  CHECK(b.assigned.back() == std::pair<std::string, std::string>{"oak", "wide"});
}

TEST_CASE("random farms: one machine per token at a time, no slot twice, and all that fits is placed") {
  auto base = test::seed_or(1);
  for (auto seed = base; seed < base + 30; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random{seed};
    placement p{placement::options{}};
    time_point now{1h};
    struct machine {
      std::uint32_t slots;
      std::vector<std::string> features;
      std::set<std::pair<inhash, fence>> running;
      bool alive = true;
    };
    std::map<node_id, machine> machines;
    for (auto* name : {"ash", "elm", "oak"})
      machines[{name}] = {static_cast<std::uint32_t>(1 + random() % 3),
                          random() % 2 ? std::vector<std::string>{"kvm"} : std::vector<std::string>{},
                          {}};
    machines[{"oak"}].features = {"kvm"};
    struct pending {
      node_id node;
      time_point since;
    };
    std::map<std::pair<inhash, fence>, pending> given; // and not answered
    std::map<node_id, std::int64_t> offered;           // free by its last offer, less what it was given since
    std::map<inhash, job> wanted;
    std::set<inhash> placed;
    bool busy_with_it = true;

    auto take = [&](placement::effects out) {
      for (auto& e : out) {
        auto* a = std::get_if<placement::assign>(&e);
        if (!a) continue;
        auto& m = machines.at(a->node);
        std::pair<inhash, fence> what{a->job.key, a->job.token};
        REQUIRE(--offered[a->node] >= 0);
        for (auto& f : a->job.features)
          REQUIRE(std::count(m.features.begin(), m.features.end(), f) == 1);
        REQUIRE(wanted.contains(a->job.key));
        REQUIRE(wanted.at(a->job.key).token == a->job.token);
        if (auto before = given.find(what); before != given.end()) REQUIRE(now - before->second.since > 10s);
        given[what] = {a->node, now};
      }
    };
    auto offer_all = [&] {
      for (auto& [id, m] : machines) {
        if (!m.alive) continue;
        auto free = m.slots - std::min<std::uint32_t>(m.slots, static_cast<std::uint32_t>(m.running.size()));
        placement::effects out;
        offered[id] = free;
        p.on_offer({id, {1}, free, m.slots, {"x86_64-linux"}, m.features}, now, out);
        take(std::move(out));
      }
    };
    auto answer = [&](auto at) {
      auto [what, g] = *at;
      given.erase(at);
      auto& m = machines.at(g.node);
      placement::effects out;
      if (busy_with_it && random() % 4 == 0) { // an earlier attempt of this very job
        ++offered[g.node];
        p.on_refused(what.first, what.second, g.node, false, now, out);
      } else if (m.running.size() < m.slots) {
        m.running.insert(what);
        if (wanted.contains(what.first) && wanted.at(what.first).token == what.second) placed.insert(what.first);
        p.on_assigned(what.first, what.second, true, now);
      } else {
        offered[g.node] = 0;
        p.on_refused(what.first, what.second, g.node, true, now, out);
      }
      take(std::move(out));
    };
    auto add = [&](const job& j) {
      placement::effects out;
      REQUIRE(p.add(j, now, out));
      take(std::move(out));
    };

    for (int i = 0; i < 400; ++i) {
      now += std::chrono::milliseconds(random() % 500);
      switch (random() % 8) {
      case 0:
      case 1: {
        auto j = job_of("j" + std::to_string(random() % 40), 1, static_cast<std::int32_t>(random() % 3));
        if (random() % 3 == 0) j.features = {"kvm"};
        if (wanted.contains(j.key)) break;
        wanted[j.key] = j;
        add(j);
        break;
      }
      case 2: // the graph repeats what is still queued
        for (auto& [k, j] : std::map<inhash, job>(wanted))
          if (!placed.contains(k)) add(j);
        break;
      case 3: offer_all(); break;
      case 4:
        if (!given.empty()) answer(given.begin());
        break;
      case 5: { // a build ends
        auto& m = machines[{std::array{"ash", "elm", "oak"}[random() % 3]}];
        if (!m.running.empty()) m.running.erase(m.running.begin());
        break;
      }
      case 6: { // the lock was lost: a newer token
        if (wanted.empty()) break;
        auto& j = std::next(wanted.begin(), static_cast<std::ptrdiff_t>(random() % wanted.size()))->second;
        ++j.token.value;
        placed.erase(j.key);
        add(job{j});
        break;
      }
      case 7: {
        placement::effects out;
        p.tick(now, out);
        take(std::move(out));
        break;
      }
      }
    }
    // then all goes well
    busy_with_it = false;
    for (int i = 0; i < 200 && placed.size() < wanted.size(); ++i) {
      now += 1s;
      for (auto& [id, m] : machines)
        m.running.clear();
      offer_all();
      while (!given.empty())
        answer(given.begin());
      for (auto& [k, j] : std::map<inhash, job>(wanted))
        if (!placed.contains(k)) add(j);
    }
    CHECK(placed.size() == wanted.size());
  }
}
