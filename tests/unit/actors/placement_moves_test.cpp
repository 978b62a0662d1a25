#include "actors/place/placement.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

nix::store_path path(const std::string& name) {
  return *nix::store_path::from_base_name("00000000000000000000000000000000-" + name);
}

heavy_input input(const std::string& name, std::uint64_t mib, const std::string& node = {}) {
  return {path(name), mib << 20, {node}};
}

job job_of(std::uint8_t n, std::vector<heavy_input> heavy) {
  job j;
  j.key.bytes[0] = n;
  j.token = {1};
  j.system = "x86_64-linux";
  std::vector<nix::store_path> inputs{path("source")};
  for (auto& h : heavy)
    inputs.push_back(h.path);
  j.inputs = std::move(inputs);
  j.heavy = std::move(heavy);
  return j;
}

job wide_job(std::uint8_t n, std::vector<heavy_input> heavy) {
  auto j = job_of(n, std::move(heavy));
  j.features = {"wide"};
  j.critical_path = 9;
  return j;
}

/// A placement with a clock, and where its jobs went.
struct farm {
  placement p{placement::options{}};
  placement::time_point now{1h};
  std::map<std::uint8_t, std::string> given;                       ///< job, node
  std::vector<std::pair<std::string, std::uint8_t>> prepared = {}; ///< node, job

  void take(const placement::effects& out) {
    for (auto& e : out) {
      if (auto* a = std::get_if<placement::assign>(&e)) given[a->job.key.bytes[0]] = a->node.value;
      if (auto* r = std::get_if<placement::prepare>(&e)) prepared.emplace_back(r->node.value, r->job.key.bytes[0]);
    }
  }
  void offers(const offer& o) {
    placement::effects out;
    p.on_offer(o, now, out);
    take(out);
  }
  void offers(const std::string& node, std::uint32_t free, std::uint32_t slots = 4, const std::string& short_of = {}) {
    offer o{{node}, {1}, free, slots, {"x86_64-linux"}, {}};
    o.short_of = short_of;
    offers(o);
  }
  /// So many of 4 cores left, and as many slots; what requires "wide" takes all cores.
  void shares(const std::string& node, std::uint32_t left) {
    offer o{{node}, {1}, left, 4, {"x86_64-linux"}, {"wide"}};
    o.share = {{4, 1'000, 1'000}, {left, 1'000, 1'000}, {1, 10, 10}, {{"wide", {4, 10, 10}}}};
    offers(o);
  }
  void add(const job& j) {
    placement::effects out;
    p.add(j, now, out);
    take(out);
  }
  void tick(std::chrono::milliseconds d = 1s) {
    now += d;
    placement::effects out;
    p.tick(now, out);
    take(out);
  }
  void took(std::uint8_t n) {
    inhash key;
    key.bytes[0] = n;
    p.on_assigned(key, {1}, true, now);
  }
};

using preparations = std::vector<std::pair<std::string, std::uint8_t>>;

} // namespace

TEST_CASE("a job goes to the machine that built its large input, though another one has more free slots") {
  farm f;
  f.offers("elm", 4);
  f.offers("oak", 1);
  f.add(job_of(1, {input("big", 200, "oak")}));
  CHECK(f.given[1] == "oak");
  f.add(job_of(2, {input("big", 200, "oak")})); // which has no slot any more: it does not wait for one
  CHECK(f.given[2] == "elm");
}

TEST_CASE("a machine that was given a job with a large input has it for the next one") {
  farm f;
  f.offers("elm", 2);
  f.offers("oak", 4);
  f.add(job_of(1, {input("big", 200)}));
  REQUIRE(f.given[1] == "oak");
  f.offers("elm", 4);
  f.add(job_of(2, {input("big", 200)}));
  CHECK(f.given[2] == "oak");
}

TEST_CASE("what is soon moved does not outweigh free slots") {
  farm f;
  f.offers("elm", 4);
  f.offers("oak", 1);
  f.add(job_of(1, {input("small", 15, "oak")}));
  CHECK(f.given[1] == "elm");
}

TEST_CASE("the order of jobs is not changed by what would have to be moved for them") {
  farm f;
  f.add(job_of(1, {input("big", 200, "elm")}));
  f.add(job_of(2, {input("big", 200, "oak")}));
  f.offers("oak", 1);
  CHECK(f.given == std::map<std::uint8_t, std::string>{{1, "oak"}});
}

TEST_CASE("a machine whose slots are all busy prepares one job at a time, until that is placed") {
  farm f;
  f.offers("oak", 0);
  f.add(job_of(1, {}));
  f.add(job_of(2, {}));
  f.tick();
  CHECK(f.prepared == preparations{{"oak", 1}});
  f.tick();
  CHECK(f.prepared.size() == 1);
  f.offers("oak", 1);
  REQUIRE(f.given[1] == "oak");
  f.took(1);
  f.tick();
  CHECK(f.prepared == preparations{{"oak", 1}, {"oak", 2}});
}

TEST_CASE("machines prepare different jobs, each those of which it has most") {
  farm f;
  f.offers("elm", 0);
  f.offers("oak", 0);
  f.add(job_of(1, {input("big", 200, "oak")}));
  f.add(job_of(2, {input("other", 200, "oak")}));
  f.tick();
  CHECK(f.prepared == preparations{{"oak", 1}, {"elm", 2}});
  f.offers("elm", 1); // what is prepared elsewhere does not wait for that machine
  CHECK(f.given[1] == "elm");
}

TEST_CASE("nothing is prepared on a machine that has a slot, is short of something, or lacks what the job wants") {
  farm f;
  auto j = job_of(1, {});
  j.features = {"kvm"};
  f.add(j);
  f.offers("oak", 0);
  f.offers("elm", 0, 4, "has no disk left");
  f.tick();
  CHECK(f.prepared.empty());
  auto any = job_of(2, {});
  f.add(any);
  f.offers("ash", 1);
  f.tick();
  CHECK(f.given[2] == "ash");
  CHECK(f.prepared.empty());
}

TEST_CASE("a job does not wait for room on the machine that has its large input when another one has room") {
  farm f;
  f.shares("elm", 4);
  f.shares("oak", 3);
  f.add(wide_job(1, {input("big", 200, "oak")}));
  CHECK(f.given[1] == "elm");
}

TEST_CASE("of machines with room for a large job, that gets it which has its large input") {
  farm f;
  f.shares("elm", 4);
  f.shares("oak", 4);
  f.add(wide_job(1, {input("big", 200, "oak")}));
  CHECK(f.given[1] == "oak");
}

TEST_CASE("kept for a large job is the machine with its large input, if as much is left elsewhere, and prepares it") {
  for (std::string holder : {"ash", "elm", "oak"}) {
    farm f;
    f.add(wide_job(1, {input("big", 200, holder)}));
    for (auto node : {"ash", "elm", "oak"})
      f.shares(node, 1);
    f.add(job_of(2, {})); // overtakes it
    REQUIRE(f.given.contains(2));
    f.took(2);
    for (auto end = f.now + placement::options{}.overtaken_max; f.now < end; f.tick())
      for (auto node : {"ash", "elm", "oak"})
        f.shares(node, 2);
    CHECK(f.prepared == preparations{{holder, 1}}); // though two of its slots are free
    f.add(job_of(5, {input("other", 200, holder)}));
    CHECK(f.given.at(5) != holder);
    f.took(5);
    f.tick();
    CHECK(f.prepared.size() == 1);
    f.shares(holder, 4);
    CHECK(f.given[1] == holder);
  }
}

TEST_CASE("a machine that is kept prepares the job that it is kept for instead of what it was to prepare before") {
  farm f;
  f.shares("oak", 1);
  f.add(wide_job(1, {}));
  f.add(job_of(2, {})); // overtakes it
  f.took(2);
  auto io = job_of(3, {});
  io.io_bound = true;
  f.add(io);
  offer busy{{"oak"}, {1}, 2, 4, {"x86_64-linux"}, {"wide"}, 0, 1};
  busy.share = {{4, 1'000, 1'000}, {2, 1'000, 1'000}, {1, 10, 10}, {{"wide", {4, 10, 10}}}};
  for (auto end = f.now + placement::options{}.overtaken_max; f.now < end; f.tick()) {
    CHECK((f.prepared.empty() || f.prepared == preparations{{"oak", 3}}));
    f.offers(busy);
  }
  CHECK(f.prepared == preparations{{"oak", 3}, {"oak", 1}});
  f.tick();
  CHECK(f.prepared.size() == 2);
}
