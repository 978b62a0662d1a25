#include "bench/support/bench_main.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/report.hpp"
#include "nix/derivation.hpp"
#include "nix/hash_modulo.hpp"
#include "store/closure.hpp"
#include "tests/sim/farm.hpp"
#include "tests/sim/seeded_random.hpp"

#include <fmt/core.h>
#include <sys/resource.h>

#include <iostream>

/// Whole farms of many machines in the simulator of tests/sim: the real actors of every machine on one thread, in
/// virtual time, over a network in memory. One client waits for a request that has more to build than the farm has
/// slots.
namespace {

using namespace coppice;
using namespace std::chrono_literals;
using std::chrono::nanoseconds;

struct settings {
  bool json = false, small = false;
  std::vector<std::size_t> machines{10, 100, 1'000};
  std::uint32_t slots = 8;
  double waves = 1;
};

constexpr auto build_least = 30s, build_most = 90s;
/// A farm is full when builders run in this share of its slots: between two builds there is a moment without one.
constexpr double full_share = 0.99;
constexpr auto sampled = 50ms;

double seconds(nanoseconds t) {
  return std::chrono::duration<double>(t).count();
}

/// Derivations that need nothing of each other, under one that needs them all and is not waited for.
struct request {
  submit_request wanted;
  std::string packed;

  explicit request(std::size_t leaves) {
    std::map<nix::store_path, nix::derivation> all;
    nix::modulo_cache modulo{[&](const nix::store_path& path) { return &all.at(path); }};
    std::vector<std::pair<nix::store_path, std::string>> texts;
    auto add = [&](nix::derivation drv, const std::string& name, const std::string& text) {
      drv.name = drv.env["name"] = name;
      drv.system = "x86_64-linux";
      drv.builder = "/bin/sh";
      drv.env["text"] = text;
      drv.env["out"];
      drv.outputs["out"];
      drv.outputs["out"].path = modulo.output_paths(drv).value().at("out");
      drv.env["out"] = drv.outputs["out"].path->to_string();
      auto path = nix::derivation_path(drv);
      texts.emplace_back(path, nix::print_derivation(drv));
      all.emplace(path, std::move(drv));
      return path;
    };
    nix::derivation root;
    for (std::size_t i = 0; i < leaves; ++i)
      root.input_drvs[add({}, "leaf", std::to_string(i) + "\n")].insert("out");
    wanted.id.bytes[0] = 1;
    wanted.body.roots.push_back({add(std::move(root), "all", "all\n"), {}});
    packed = test::need(store::pack_closure(texts));
    wanted.body.closure = store::closure_id(packed);
  }
};

/// What was said, asked of the ledger, changed there and computed.
struct costs {
  double words = 0, ledger = 0, rows = 0, cpu_us = 0, hub_us = 0;
  costs operator+(const costs& x) const {
    return {words + x.words, ledger + x.ledger, rows + x.rows, cpu_us + x.cpu_us, hub_us + x.hub_us};
  }
  costs operator*(double x) const { return {words * x, ledger * x, rows * x, cpu_us * x, hub_us * x}; }
  costs operator-(const costs& x) const { return *this + x * -1; }
};
struct tally {
  double at, built;
  costs all;
};

class bench_farm {
  template <class Predicate>
  void until(const char* what, Predicate done) {
    if (!farm_.run_until(done, farm_.time.now() + 20min))
      throw std::runtime_error(fmt::format("in 20 virtual minutes it did not happen that {}", what));
  }
  template <class Handle, class... Ts>
  auto ask(const Handle& to, const Ts&... xs) {
    farm_.wake(farm_.hub());
    auto q = farm_.hub().process->world().begin(to, xs...);
    until("the hub answers", [&] { return q.answered(); });
    return test::need(q.get());
  }

public:
  bench_farm(std::size_t members, std::uint32_t slots) : farm_(options(members, slots)), slots_(members * slots) {
    farm_.start(farm_.hub());
    sim::dice d{1};
    // not at one instant, or all timers of all machines would stay in step
    for (auto& m : farm_.machines())
      farm_.time.after(d.between(0s, 10s), [&] { farm_.start(*m); });
    until("all machines have a lease", [&] { return farm_.ledger.rows().live_sessions().size() > members; });
    farm_.run_for(10s);
    sample();
  }

  void run_for(nanoseconds d) { farm_.run_for(d); }
  void submit(const request& r) {
    test::need(farm_.blobs.put(store::closure_key(r.wanted.body.closure, {1}), r.packed));
    (void)ask(farm_.hub().process->ledger(), atom::transact_v,
              ledger::transaction{ledger::register_blob{r.wanted.body.closure, {1}, r.packed.size()}});
    (void)ask(farm_.hub().process->gateway(), atom::submit_v, client_, r.wanted);
    followed_.id = r.wanted.id;
    follow();
  }
  /// Virtual seconds until the farm is full.
  double fill() {
    const auto began = farm_.time.now();
    until("the farm is full", [&] { return static_cast<double>(busy_) >= full_share * static_cast<double>(slots_); });
    return seconds(farm_.time.now() - began);
  }
  /// Runs until so many were built; gives the share of slots in which builders ran.
  double build(std::size_t n) {
    samples_ = 0, busy_sum_ = 0;
    until("enough is built", [&] { return farm_.watcher.builds_made() >= n; });
    return busy_sum_ / static_cast<double>(samples_ * slots_);
  }
  /// The hub's process is killed, and started again a second later; virtual seconds from its death until a builder
  /// starts.
  double lose_hub() {
    auto& hub = farm_.hub();
    const auto began = farm_.time.now();
    farm_.crash(hub);
    farm_.time.after(1s, [&] { farm_.start(hub); });
    farm_.run_for(500ms); // what was on its way to machines has arrived
    const auto before = started_;
    until("builders start again", [&] { return started_ > before; });
    return seconds(farm_.time.now() - began);
  }
  tally so_far() const {
    auto& w = farm_.watcher;
    return {seconds(farm_.time.now()),
            static_cast<double>(w.builds_made()),
            {static_cast<double>(farm_.net.carried), static_cast<double>(w.transactions()),
             static_cast<double>(w.changes()), bench::own_cpu_s() * 1e6, seconds(farm_.hub_cpu()) * 1e6}};
  }
  void require_sound() const {
    if (auto& broken = farm_.watcher.violations(); !broken.empty())
      throw std::runtime_error(fmt::format("{} promises are broken: {}", broken.size(), broken.front()));
  }

private:
  static sim::farm_options options(std::size_t members, std::uint32_t slots) {
    sim::farm_options o;
    o.members = members;
    o.hub_slots = 0;
    o.member_slots = slots;
    o.times_hub = true;
    o.scripts["leaf"] = {build_least, build_most};
    return o;
  }

  /// As a client does that shows how far its request is.
  void follow() {
    auto& hub = farm_.hub();
    if (open_ && hub.born != asked_of_) open_.reset();
    if (open_ && open_->answered()) {
      if (auto news = open_->get()) followed_.after = news->next;
      open_.reset();
    }
    if (!open_ && hub.runs()) {
      farm_.wake(hub);
      asked_of_ = hub.born;
      open_ = hub.process->world().begin(hub.process->gateway(), atom::poll_v, client_, followed_);
    }
    farm_.time.after(100ms, [this] { follow(); });
  }
  void sample() {
    busy_ = 0;
    for (auto& m : farm_.machines())
      busy_ += m->builders->running();
    busy_sum_ += static_cast<double>(busy_);
    started_ = farm_.watcher.builds_made() + busy_;
    ++samples_;
    farm_.time.after(sampled, [this] { sample(); });
  }

  sim::farm farm_;
  const std::size_t slots_;
  const caller client_{"bench", role::submitter};
  poll_request followed_{{}, 0, poll_wait_ms_max};
  std::optional<test::question<request_progress>> open_;
  std::uint64_t asked_of_ = 0;                       ///< which process of the hub
  std::size_t busy_ = 0, started_ = 0, samples_ = 0; ///< builders, as of the newest sample
  double busy_sum_ = 0;
};

/// Of one size.
struct figures {
  costs idle;                              ///< of a machine that does nothing, a second
  costs running;                           ///< of a builder that runs, a second, besides
  costs job;                               ///< of a derivation whose builder runs for a minute
  double full_s, full_cpu_us, full_hub_us; ///< from the request until the farm is full; CPU time for each slot
  double busy;                             ///< share of slots, while jobs wait
  double again_s, refilled_s;              ///< from the hub's death until a builder starts, and until the farm is full
};

figures measure(std::size_t machines, const settings& s) {
  sim::seed_random_ids(1);
  figures f{};
  const auto members = static_cast<double>(machines), slots = members * s.slots;
  // besides those that are built and those that are being built then, one for each slot waits when the hub is lost
  const request r{static_cast<std::size_t>(slots * (s.waves + 2))};
  bench_farm farm{machines, s.slots};

  const auto began = farm.so_far();
  farm.run_for(60s);
  const auto asked = farm.so_far();
  f.idle = (asked.all - began.all) * (1 / (members * (asked.at - began.at)));

  farm.submit(r);
  f.full_s = farm.fill();
  const auto full = farm.so_far();
  f.full_cpu_us = (full.all.cpu_us - asked.all.cpu_us) / slots;
  f.full_hub_us = (full.all.hub_us - asked.all.hub_us) / slots;

  farm.run_for(build_least - 5s); // all run, none begins or ends
  const auto ran = farm.so_far();
  const auto besides = [&](const tally& from, const tally& to) {
    return to.all - from.all - f.idle * (members * (to.at - from.at));
  };
  f.running = besides(full, ran) * (1 / (slots * (ran.at - full.at)));

  f.busy = farm.build(static_cast<std::size_t>(slots * s.waves));
  const auto end = farm.so_far();
  const auto builder_s = f.busy * slots * (end.at - ran.at);
  f.job = (besides(ran, end) - f.running * builder_s) * (1 / (end.built - ran.built)) + f.running * 60;

  f.again_s = farm.lose_hub();
  f.refilled_s = f.again_s + farm.fill();
  farm.require_sound();
  return f;
}

std::vector<bench::row> measure(const settings& s) {
  std::vector<bench::row> rows;
  std::optional<figures> least;
  for (const auto machines : s.machines) {
    const bench::stopwatch watch;
    const auto cpu = bench::own_cpu_s();
    const auto f = measure(machines, s);
    const auto cost = watch.since(bench::own_cpu_s() - cpu);
    std::cerr << fmt::format("{} machines in {:.0f} s, {:.0f} s of CPU\n", machines, cost.wall_s, cost.cpu_s);
    const auto add = [&](const char* name, const char* unit, auto value) {
      rows.push_back({fmt::format("scale_sim_{}_{}", machines, name), value(f), unit});
      if (least && std::string_view{unit}.starts_with("us")) rows.back().rival = value(*least);
    };
    add("idle_words", "1/s", [](auto& x) { return x.idle.words; });
    add("idle_ledger", "1/s", [](auto& x) { return x.idle.ledger; });
    add("idle_cpu", "us/s", [](auto& x) { return x.idle.cpu_us; });
    add("idle_hub", "us/s", [](auto& x) { return x.idle.hub_us; });
    add("running_words", "1/s", [](auto& x) { return x.running.words; });
    add("running_ledger", "1/s", [](auto& x) { return x.running.ledger; });
    add("running_hub", "us/s", [](auto& x) { return x.running.hub_us; });
    add("words", "1/job", [](auto& x) { return x.job.words; });
    add("ledger", "1/job", [](auto& x) { return x.job.ledger; });
    add("rows", "1/job", [](auto& x) { return x.job.rows; });
    add("cpu", "us/job", [](auto& x) { return x.job.cpu_us; });
    add("hub", "us/job", [](auto& x) { return x.job.hub_us; });
    add("busy", "share", [](auto& x) { return x.busy; });
    add("full", "s", [](auto& x) { return x.full_s; });
    add("full_cpu", "us/job", [](auto& x) { return x.full_cpu_us; });
    add("full_hub", "us/job", [](auto& x) { return x.full_hub_us; });
    add("again", "s", [](auto& x) { return x.again_s; });
    add("refilled", "s", [](auto& x) { return x.refilled_s; });
    if (!least) least = f;
  }
  return rows;
}

/// Each machine listens, and each builder that runs has a log.
void raise_open_files() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files); // ignored: small farms need no more
}

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{
      "What farms of 10, 100 and 1,000 machines say and do in the simulator, where all actors are real and time is "
      "virtual: words between machines, ledger transactions, how full the slots are, and CPU time of the whole "
      "simulation, for each derivation, of which each builds for a minute. Rival of the CPU time: the smallest "
      "farm's."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_option("--machines", s.machines, "how many, without the hub")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--slots", s.slots, "builds at once, of each machine")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--waves", s.waves, "derivations that are built, for each slot")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) s.machines = {3}, s.slots = 2;
    raise_open_files();
    bench::print(measure(s), s.json);
    return {};
  });
}
