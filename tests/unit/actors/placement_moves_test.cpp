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
  void offers(const std::string& node, std::uint32_t free, std::uint32_t slots = 4, const std::string& short_of = {}) {
    placement::effects out;
    offer o{{node}, {1}, free, slots, {"x86_64-linux"}, {}};
    o.short_of = short_of;
    p.on_offer(o, now, out);
    take(out);
  }
  void add(const job& j) {
    placement::effects out;
    p.add(j, now, out);
    take(out);
  }
  void tick() {
    now += 1s;
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
