#include "actors/build/sandbox.hpp"
#include "bench/support/bench_main.hpp"
#include "bench/support/debian_graph.hpp"
#include "bench/support/real_node.hpp"
#include "bench/support/report.hpp"
#include "store/files.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

using namespace coppice;
namespace fs = std::filesystem;

namespace {

struct settings {
  bool json = false, small = false;
  std::size_t builds = 1000, nix_builds = 200, rounds = 2;
  unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
};

expected<std::vector<std::string>> write_drvs(std::size_t count, std::uint64_t salt, const fs::path& root) {
  const auto graph = bench::make_flat_graph(count, salt);
  if (!graph) return tl::unexpected(graph.error());
  if (auto written = bench::write_nix_store(*graph, root); !written) return tl::unexpected(written.error());
  std::vector<std::string> drvs;
  for (const auto& [path, aterm] : graph->derivations)
    drvs.push_back(path.to_string());
  return drvs;
}

expected<void> run_nix(const settings& s, std::uint64_t salt, bench::samples& into) {
  const bench::work_dir dir;
  auto drvs = write_drvs(s.nix_builds, salt, dir.path());
  if (!drvs) return tl::unexpected(drvs.error());
  if (auto loaded = bench::load_nix_db(dir.path()); !loaded) return loaded;
  std::vector<std::string> argv{"nix-store", "--realise", "-j", std::to_string(s.jobs)};
  argv.insert(argv.end(), drvs->begin(), drvs->end());
  const auto cost = bench::run(bench::nix(dir.path(), argv));
  if (!cost) return tl::unexpected(cost.error());
  into.add(*cost);
  return {};
}

expected<void> run_coppice(const settings& s, std::uint64_t salt, bench::samples& into) {
  const bench::work_dir dir;
  const auto programs = fs::read_symlink("/proc/self/exe").parent_path();
  const auto drvs = write_drvs(s.builds, salt, dir.path());
  if (!drvs) return tl::unexpected(drvs.error());
  const auto node = bench::real_node::start(
      dir.path(), "max_jobs = " + std::to_string(s.jobs) +
                      "\ncores = 1\nsandbox_paths = [\"/usr\", \"/bin\", \"/lib\", \"/lib64\"]\n");
  if (!node) return tl::unexpected(node.error());
  bench::command client{{programs / "coppice", "build", "--state-dir", node->state_dir(), "--no-link", "--no-fetch"},
                        {{"XDG_DATA_HOME", dir.path() / "data"}},
                        dir.path() / "client.log"};
  for (const auto& drv : *drvs)
    client.argv.push_back(dir.path().string() + drv);
  const auto before = node->process().cpu_s();
  const bench::stopwatch watch;
  const auto cost = bench::run(client);
  if (!cost) return tl::unexpected(cost.error());
  auto all = watch.since(cost->cpu_s + node->process().cpu_s() - before);
  all.rss_mib = node->process().rss_mib();
  into.add(all);
  return {};
}

/// One start of bubblewrap with these arguments and a command that does nothing.
expected<void> start_sandbox(const std::string& arguments) {
  rt::unique_fd fd{::memfd_create("arguments", 0)};
  if (auto written = store::write_all(fd.get(), arguments, "arguments"); !written) return written;
  ::lseek(fd.get(), 0, SEEK_SET);
  const auto number = std::to_string(fd.get());
  const char* argv[] = {"/usr/bin/bwrap", "--args", number.c_str(), "--", "/bin/true", nullptr};
  pid_t pid = -1;
  int status = 0;
  if (::posix_spawn(&pid, argv[0], nullptr, nullptr, const_cast<char**>(argv), environ) != 0 ||
      ::waitpid(pid, &status, 0) != pid || status != 0)
    return fail(ec::io, "bwrap failed");
  return {};
}

/// Child: as many starts as there are builds, `jobs` at a time.
expected<void> start_sandboxes(const settings& s, const fs::path& dir) {
  const auto graph = bench::make_flat_graph(1, 0);
  if (!graph) return tl::unexpected(graph.error());
  const auto& [path, aterm] = graph->derivations.front();
  const auto drv = nix::parse_derivation(aterm, path);
  if (!drv) return fail(ec::invalid, drv.error().what);
  actors::sandbox_settings world;
  for (const char* host : {"/usr", "/bin", "/lib", "/lib64"})
    world.paths.push_back({host, host, false});
  const auto plan = actors::plan_sandbox(path, *drv, {}, world);
  if (!plan) return tl::unexpected(plan.error());
  for (const char* name : {"build", "store", "etc"})
    fs::create_directory(dir / name);
  for (const auto& [name, text] : plan->etc_files)
    std::ofstream{dir / "etc" / name} << text;
  const auto arguments = actors::bwrap_arguments(*plan, {dir / "build", dir / "store", dir / "etc", dir, {}});

  std::atomic<std::size_t> left{s.builds};
  std::vector<expected<void>> results(s.jobs);
  std::vector<std::thread> threads;
  for (auto& result : results)
    threads.emplace_back([&] {
      for (auto had = left.load(); result && had > 0;)
        if (left.compare_exchange_weak(had, had - 1)) result = start_sandbox(arguments);
    });
  for (auto& thread : threads)
    thread.join();
  for (auto& result : results)
    if (!result) return result;
  return {};
}

expected<void> run_bwrap(const settings& s, bench::samples& into) {
  const bench::work_dir dir;
  const auto cost = bench::run({{"/proc/self/exe", "--starts-in", dir.path(), "--builds", std::to_string(s.builds),
                                 "--jobs", std::to_string(s.jobs)},
                                {},
                                dir.path() / "log"});
  if (!cost) return tl::unexpected(cost.error());
  into.add(*cost);
  return {};
}

expected<void> compare(const settings& s) {
  bench::samples ours, nix, bwrap;
  for (std::size_t round = 0; round < s.rounds; ++round) {
    auto done = run_bwrap(s, bwrap).and_then([&] { return run_coppice(s, round, ours); }).and_then([&] {
      return run_nix(s, round, nix);
    });
    if (!done) return done;
  }
  using bench::median;
  const auto rate = [](const bench::samples& all, std::size_t builds) {
    return static_cast<double>(builds) / median(all.wall_s);
  };
  const auto cpu_ms = [](const bench::samples& all, std::size_t builds) {
    return median(all.cpu_s) * 1000 / static_cast<double>(builds);
  };
  const auto n = s.builds;
  bench::print({{"build_rate", rate(ours, n), "1/s", rate(nix, s.nix_builds), bench::at_least(8)},
                {"build_rate_of_bwrap", rate(ours, n), "1/s", rate(bwrap, n), bench::at_least(0.7)},
                {"build_cpu", cpu_ms(ours, n), "ms", cpu_ms(nix, s.nix_builds)},
                {"build_cpu_of_bwrap", cpu_ms(ours, n), "ms", cpu_ms(bwrap, n), bench::at_most(1 / 0.7)},
                {"build_memory", median(ours.rss_mib), "MiB"},
                {"build_foreign", median(ours.foreign), "share"},
                {"build_nix_foreign", median(nix.foreign), "share"},
                {"build_bwrap_foreign", median(bwrap.foreign), "share"}},
               s.json);
  return {};
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Trivial sandboxed derivations through a solo node (real coppiced, real bubblewrap) against stock Nix with "
      "its sandbox on, and against starting bubblewrap as often with the same arguments and a command that "
      "does nothing; all with the same number of jobs at a time."};
  settings s;
  fs::path starts_in;
  app.add_flag("--json", s.json, "One line of JSON for each figure");
  app.add_flag("--small", s.small, "Few builds, once: to see that it runs");
  app.add_option("--builds", s.builds, "Derivations built, and starts of bubblewrap")->capture_default_str();
  app.add_option("--nix-builds", s.nix_builds, "Derivations built by stock Nix")->capture_default_str();
  app.add_option("--rounds", s.rounds, "Times to run each; the median counts")->capture_default_str();
  app.add_option("--jobs", s.jobs, "Builds at a time")->capture_default_str();
  app.add_option("--starts-in", starts_in)->group("");
  return bench::bench_main(app, argc, argv, [&] {
    if (s.small) {
      s.builds = s.nix_builds = 4;
      s.rounds = 1;
    }
    return starts_in.empty() ? compare(s) : start_sandboxes(s, starts_in);
  });
}
