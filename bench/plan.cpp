#include "actors/plan/closure_graph.hpp"
#include "bench/support/bench_main.hpp"
#include "bench/support/debian_graph.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/report.hpp"
#include "store/closure.hpp"
#include "store/directory_blob_store.hpp"

#include <fstream>
#include <iostream>

using namespace coppice;
namespace fs = std::filesystem;

namespace {

struct settings {
  bool json = false, small = false;
  std::size_t rounds = 5, copies = 10;
  std::string blobs, key, root; // of the child
};

/// What GRAPH does with a request whose derivations are all to be built: read, check, hash, plan, ask for each.
/// Prints how many have to be built.
expected<void> plan_in_this_process(const settings& s) {
  const auto blobs = store::directory_blob_store::open_dir(s.blobs);
  if (!blobs) return tl::unexpected(blobs.error());
  const auto root = nix::store_path::parse(s.root);
  if (!root) return fail(ec::invalid, root.error().what);
  const auto graph = actors::closure_graph::load(**blobs, s.key, {{*root, {}}});
  if (!graph) return tl::unexpected(graph.error());
  const auto loaded = bench::own_cpu_s();

  actors::plan plan{(*graph)->nodes(), (*graph)->roots(), {}};
  auto effects = plan.start();
  for (std::size_t i = 0; i < effects.size(); ++i) {
    if (const auto* d = std::get_if<actors::plan::discovered>(&effects[i])) {
      std::cout << d->wanted.size() << ' ' << loaded << '\n';
      return {};
    }
    const auto* ask = std::get_if<actors::plan::ask>(&effects[i]);
    if (ask == nullptr) continue;
    std::vector<ledger::lock_state> rows(ask->keys.size());
    for (std::size_t k = 0; k < rows.size(); ++k)
      rows[k].key = ask->keys[k];
    auto more = plan.on_rows(rows);
    effects.insert(effects.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
  return fail(ec::invalid, "the plan asked for nothing more and did not discover what is to be built");
}

/// The same graph twice: in a store of stock Nix, and packed as a client uploads it.
struct workload {
  fs::path dir;
  std::string key;
  std::string root;
  std::size_t derivations = 0;
};

expected<workload> make_workload(const fs::path& dir, const bench::graph_options& options) {
  const auto graph = bench::make_debian_graph(options);
  if (!graph) return tl::unexpected(graph.error());
  if (auto written = bench::write_nix_store(*graph, dir / "nix"); !written) return tl::unexpected(written.error());
  if (auto loaded = bench::load_nix_db(dir / "nix"); !loaded) return tl::unexpected(loaded.error());

  const auto packed = store::pack_closure(graph->derivations);
  if (!packed) return tl::unexpected(packed.error());
  const auto blobs = store::directory_blob_store::open_dir(dir / "blobs");
  if (!blobs) return tl::unexpected(blobs.error());
  const auto key = store::closure_key(store::closure_id(*packed), generation{1});
  if (auto put = (*blobs)->put(key, *packed); !put) return tl::unexpected(put.error());
  return workload{dir, key, graph->root.to_string(), graph->derivations.size()};
}

expected<void> measure(const workload& w, std::size_t rounds, bench::samples& ours, std::vector<double>& load_s,
                       bench::samples& theirs) {
  auto rival = bench::nix(w.dir / "nix", {"nix-store", "--realise", "--dry-run", w.root});
  rival.log = w.dir / "dry-run";
  for (std::size_t i = 0; i < rounds; ++i) {
    const auto mine = bench::run(
        {{"/proc/self/exe", "--blobs", w.dir / "blobs", "--key", w.key, "--root", w.root}, {}, w.dir / "log"});
    if (!mine) return tl::unexpected(mine.error());
    fs::remove(rival.log);
    const auto other = bench::run(rival);
    if (!other) return tl::unexpected(other.error());

    std::istringstream said{mine->output};
    std::size_t wanted = 0;
    double load = 0;
    said >> wanted >> load;
    std::ifstream dry_run{rival.log};
    std::size_t lines = 0;
    for (std::string line; std::getline(dry_run, line);)
      lines += line.ends_with(".drv");
    if (wanted != w.derivations || lines != w.derivations)
      return fail(ec::invalid, "of " + std::to_string(w.derivations) + " derivations we would build " +
                                   std::to_string(wanted) + ", Nix " + std::to_string(lines));
    ours.add(*mine);
    load_s.push_back(load);
    theirs.add(*other);
  }
  return {};
}

expected<void> compare(const std::string& name, const bench::graph_options& options, std::size_t rounds,
                       std::vector<bench::row>& rows) {
  const bench::work_dir dir;
  const auto w = make_workload(dir.path(), options);
  if (!w) return tl::unexpected(w.error());
  bench::samples ours, theirs;
  std::vector<double> load_s;
  if (auto done = measure(*w, rounds, ours, load_s, theirs); !done) return done;
  rows.push_back({name + "_derivations", static_cast<double>(w->derivations), ""});
  rows.push_back({name + "_cpu", bench::median(ours.cpu_s), "s", bench::median(theirs.cpu_s), bench::at_most(0.1)});
  rows.push_back({name + "_cpu_load", bench::median(load_s), "s"});
  rows.push_back({name + "_memory", bench::median(ours.rss_mib), "MiB", bench::median(theirs.rss_mib)});
  rows.push_back({name + "_foreign", std::max(bench::median(ours.foreign), bench::median(theirs.foreign)), "share"});
  return {};
}

expected<void> compare_all(const settings& s) {
  std::vector<bench::row> rows;
  bench::graph_options once, many;
  if (s.small) once.packages_max = many.packages_max = 300;
  many.copies = s.small ? 2 : s.copies;
  auto done = compare("plan", once, s.small ? 1 : s.rounds, rows);
  if (done && many.copies > 1) done = compare("plan_" + std::to_string(many.copies) + "x", many, 1, rows);
  if (done) bench::print(rows, s.json);
  return done;
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{"CPU time and memory of reading, checking and planning a graph of 34,290 derivations, all of them to be "
               "built, against `nix-store --realise --dry-run` of the same; then of several copies of it."};
  settings s;
  app.add_flag("--json", s.json, "One line of JSON for each figure");
  app.add_flag("--small", s.small, "Few derivations, once: to see that it runs");
  app.add_option("--rounds", s.rounds, "Times to run each; the median counts")->capture_default_str();
  app.add_option("--copies", s.copies, "Copies of the graph in the large run; 1 for none")->capture_default_str();
  for (auto [name, value] : {std::pair{"--blobs", &s.blobs}, {"--key", &s.key}, {"--root", &s.root}})
    app.add_option(name, *value)->group("");
  return bench::bench_main(app, argc, argv, [&] { return s.blobs.empty() ? compare_all(s) : plan_in_this_process(s); });
}
