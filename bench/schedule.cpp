#include "bench/support/bench_main.hpp"
#include "bench/support/idle_farm.hpp"
#include "bench/support/report.hpp"
#include "bench/support/stock_nix.hpp"
#include "bench/support/wide_graph.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <thread>

namespace {

using namespace coppice;
namespace fs = std::filesystem;

constexpr double rate_aim = 5'000;    // derivations per second on two cores
constexpr double cpu_us_aim = 400;    // what that leaves for each
constexpr double thread_us_aim = 200; // and for each on one thread

struct settings {
  bool json = false, small = false, no_rival = false;
  std::size_t packages = 1'000'000, copies = 1, rival = 200, event_rounds = 3;
  std::vector<std::size_t> wide{1'000, 10'000, 100'000};
  std::uint32_t slots = 256;
  fs::path dir;
};

class schedule {
public:
  explicit schedule(const settings& s) : s_(s), work_(s.dir) {}

  std::vector<bench::row> run() {
    if (!s_.no_rival) measure_rival();
    if (s_.packages > 0) {
      bench::graph_options o;
      o.packages_max = s_.packages;
      o.copies = s_.copies;
      auto graph = bench::make_debian_graph(o);
      if (!graph) throw std::runtime_error(to_string(graph.error()));
      measure_events(*graph);
      measure("debian", std::move(*graph));
    }
    std::vector<double> per_derivation;
    for (auto leaves : s_.wide)
      per_derivation.push_back(measure("wide_" + std::to_string(leaves), bench::make_wide_graph(leaves)));
    if (per_derivation.size() > 1)
      rows_.push_back({"schedule_knee_cpu", per_derivation.back(), "us", per_derivation.front(), bench::at_most(1.5)});
    return std::move(rows_);
  }

private:
  /// One request on a farm of its own, so that no run meets the rows of another; gives CPU microseconds for each.
  double measure(const std::string& what, bench::derivation_graph graph) {
    auto dir = work_.path() / what;
    fs::create_directories(dir);
    bench::idle_farm farm{{dir, s_.slots}};
    auto n = graph.derivations.size();
    auto r = farm.run({std::move(graph.derivations), {graph.root}});
    if (r.built != n) throw std::runtime_error(fmt::format("{}: {} of {} derivations were built", what, r.built, n));
    auto each = [&](double x) { return x / static_cast<double>(n); };
    auto rate = static_cast<double>(n) / r.cost.wall_s;
    auto add = [&](const std::string& name, double value, const std::string& unit, std::optional<double> rival = {},
                   std::optional<bench::aim> aim = {}) {
      rows_.push_back({"schedule_" + what + name, value, unit, rival, aim});
    };
    if (rival_) add("_nix", rate, "drv/s", *rival_);
    add("_rate", rate, "drv/s", rate_aim, bench::at_least(1));
    add("_cpu", each(r.cost.cpu_s) * 1e6, "us/drv", cpu_us_aim, bench::at_most(1));
    add("_thread", each(r.busiest.cpu_s) * 1e6, "us/drv", thread_us_aim, bench::at_most(1));
    add("_memory", each(static_cast<double>(r.memory_bytes)), "B/drv");
    add("_ledger", each(static_cast<double>(r.ledger_bytes)), "B/drv");
    add("_foreign", r.cost.foreign, "share");
    std::cerr << fmt::format("{}: {} derivations in {:.2f} s, {:.2f} s CPU, busiest thread {}\n", what, n,
                             r.cost.wall_s, r.cost.cpu_s, r.busiest.name);
    return each(r.cost.cpu_s) * 1e6;
  }

  /// What the event stream and one follower of it cost: CPU time with them beside that without, in turns.
  void measure_events(const bench::derivation_graph& graph) {
    if (s_.event_rounds == 0) return;
    auto n = static_cast<double>(graph.derivations.size());
    std::vector<double> with, without;
    for (std::size_t i = 0; i < 2 * s_.event_rounds; ++i) {
      bool events = i % 2 == 0;
      auto dir = work_.path() / ("events_" + std::to_string(i));
      fs::create_directories(dir);
      bench::idle_farm farm{{dir, s_.slots, events}};
      auto r = farm.run({graph.derivations, {graph.root}});
      (events ? with : without).push_back(r.cost.cpu_s / n * 1e6);
      std::cerr << fmt::format("{} events: {:.1f} us CPU for each derivation, {:.0f} B of events followed\n",
                               events ? "with" : "without", r.cost.cpu_s / n * 1e6,
                               static_cast<double>(r.followed_bytes) / n);
    }
    auto median = [](std::vector<double>& all) {
      std::sort(all.begin(), all.end());
      return all[all.size() / 2];
    };
    rows_.push_back({"schedule_events_cpu", median(with), "us/drv", median(without), bench::at_most(1.1)});
  }

  /// Stock Nix on a wide graph; of few derivations, for its time is quadratic in what waits.
  void measure_rival() {
    auto root = work_.path() / "nix";
    auto leaf = [](const std::string& name, const std::string& more) {
      return "derivation { name = " + name +
             "; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo x > $out\" ]; " + more +
             "}";
    };
    fs::create_directories(root);
    auto drvs =
        bench::instantiate(root, leaf("\"all\"", "needs = map (n: " + leaf("\"leaf-${toString n}\"", "") +
                                                     ") (builtins.genList (n: n) " + std::to_string(s_.rival) + "); "));
    if (!drvs) throw std::runtime_error(to_string(drvs.error()));
    auto cost = bench::run(
        bench::nix_without_sandbox(root, {"nix-store", "--realise", drvs->at(0), "--cores", "1", "-j",
                                          std::to_string(std::max(1u, std::thread::hardware_concurrency()))}));
    if (!cost) throw std::runtime_error(to_string(cost.error()));
    rival_ = static_cast<double>(s_.rival + 1) / cost->wall_s;
    rows_.push_back({"schedule_nix_foreign", cost->foreign, "share"});
  }

  const settings& s_;
  bench::work_dir work_;
  std::optional<double> rival_;
  std::vector<bench::row> rows_;
};

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Derivations per second from submit to result through a whole solo node with its durable SQLite ledger "
               "on disk; only WORKER builds nothing, and blobs are kept in memory. Rival: nix-store --realise without "
               "sandbox on a few derivations."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_flag("--no-rival", s.no_rival, "do not run stock Nix");
  app.add_option("--packages", s.packages, "of Debian's graph, the first ones (0: none)")->capture_default_str();
  app.add_option("--copies", s.copies, "of Debian's graph")->capture_default_str();
  app.add_option("--wide", s.wide, "leaves of each wide graph (0: none)")->capture_default_str();
  app.add_option("--rival", s.rival, "derivations that stock Nix builds")->capture_default_str();
  app.add_option("--event-rounds", s.event_rounds, "runs of Debian's graph with, and as many without, the event stream")
      ->capture_default_str();
  app.add_option("--slots", s.slots, "builds at once")->capture_default_str();
  app.add_option("--dir", s.dir, "a directory on a real disk (TMPDIR, or /var/tmp)");
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) {
      s.packages = 200;
      s.wide = {100, 400};
      s.rival = 20;
      s.event_rounds = 1;
    }
    std::erase(s.wide, 0u);
    bench::print(schedule{s}.run(), s.json);
    return {};
  });
}
