#include "bench/support/bench_main.hpp"
#include "bench/support/idle_farm.hpp"
#include "bench/support/report.hpp"
#include "bench/support/stock_nix.hpp"
#include "bench/support/wide_graph.hpp"

#include <fmt/core.h>

#include <iostream>
#include <thread>

/// Jobs per second from one hub to other processes that build nothing: plan, lock, place, worker, commit and publish,
/// all by the hub's ledger.
namespace {

using namespace coppice;
namespace fs = std::filesystem;

constexpr double rate_aim = 2'000;

struct settings {
  bool json = false, small = false, no_rival = false;
  std::uint32_t members = 2, slots = 128;
  std::size_t jobs = 20'000, rounds = 3;
  std::uint32_t rival = 200;
  std::string dir;
};

double nix_rate(const fs::path& root, std::uint32_t n) {
  fs::create_directories(root);
  auto leaf = [](const std::string& name, const std::string& more) {
    return "derivation { name = " + name +
           "; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo x > $out\" ]; " + more +
           "}";
  };
  auto drvs = bench::instantiate(root, leaf("\"all\"", "needs = map (n: " + leaf("\"leaf-${toString n}\"", "") +
                                                           ") (builtins.genList (n: n) " + std::to_string(n) + "); "));
  if (!drvs) throw std::runtime_error(to_string(drvs.error()));
  auto cost =
      bench::run(bench::nix_without_sandbox(root, {"nix-store", "--realise", drvs->at(0), "--cores", "1", "-j",
                                                   std::to_string(std::max(1u, std::thread::hardware_concurrency()))}));
  if (!cost) throw std::runtime_error(to_string(cost.error()));
  return static_cast<double>(n + 1) / cost->wall_s;
}

std::vector<bench::row> measure(const settings& s) {
  bench::work_dir work{s.dir};
  fs::create_directories(work.path() / "farm");
  bench::idle_farm farm{{work.path() / "farm", s.slots, false, {}, s.members}};
  std::vector<double> rates, cpu, thread, foreign;
  for (std::size_t round = 0; round < s.rounds; ++round) {
    auto graph = bench::make_wide_graph(s.jobs, "-" + std::to_string(round));
    const auto n = static_cast<double>(graph.derivations.size());
    auto r = farm.run({std::move(graph.derivations), {graph.root}});
    if (static_cast<double>(r.built) != n) throw std::runtime_error(fmt::format("{} of {} jobs were done", r.built, n));
    rates.push_back(n / r.cost.wall_s);
    cpu.push_back(r.cost.cpu_s / n * 1e6);
    thread.push_back(r.busiest.cpu_s / n * 1e6);
    foreign.push_back(r.cost.foreign);
    std::cerr << fmt::format("{} jobs in {:.2f} s, {:.2f} s CPU of all processes, the hub's busiest thread {}\n", n,
                             r.cost.wall_s, r.cost.cpu_s, r.busiest.name);
  }
  std::vector<bench::row> rows;
  const auto rate = bench::median(rates);
  rows.push_back({"farm_jobs_rate", rate, "job/s", rate_aim, bench::at_least(1)});
  rows.push_back({"farm_jobs_cpu", bench::median(cpu), "us/job"});
  rows.push_back({"farm_jobs_hub_thread", bench::median(thread), "us/job"});
  rows.push_back({"farm_jobs_foreign", bench::median(foreign), "share"});
  if (!s.no_rival)
    rows.push_back({"farm_jobs_nix_local", rate, "job/s", nix_rate(work.path() / "nix", s.rival), bench::at_least(1)});
  return rows;
}

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{
      "Jobs per second from one hub to worker processes that build nothing, over loopback with CURVE, by the hub's "
      "durable ledger on disk. Rival: nix-store --realise on one machine, without sandbox, so without any network."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_flag("--no-rival", s.no_rival, "do not run stock Nix");
  app.add_option("--members", s.members, "worker processes")->capture_default_str()->check(CLI::Range(1, 64));
  app.add_option("--slots", s.slots, "builds at once, of each")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--jobs", s.jobs, "in a round")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--rounds", s.rounds, "the median counts")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--rival", s.rival, "derivations that stock Nix builds")->capture_default_str();
  app.add_option("--dir", s.dir, "a directory on a real disk (TMPDIR, or /var/tmp)");
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) {
      s.jobs = 300;
      s.rounds = 1;
      s.rival = 20;
    }
    bench::print(measure(s), s.json);
    return {};
  });
}
