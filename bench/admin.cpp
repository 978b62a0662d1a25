#include "messages/admin.hpp"

#include "bench/support/bench_main.hpp"
#include "bench/support/debian_graph.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/real_node.hpp"
#include "bench/support/report.hpp"
#include "runtime/call.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <fstream>
#include <functional>
#include <iostream>
#include <thread>

namespace {

using namespace coppice;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using clock_type = std::chrono::steady_clock;

constexpr double answer_aim_ms = 1'000;
constexpr auto call_timeout = 60s;

struct settings {
  bool json = false, small = false;
  std::size_t packages = 1'000'000, repeats = 20;
  fs::path dir;
};

template <class T, class E>
T need(tl::expected<T, E> x) {
  if (!x) throw std::runtime_error(x.error().what);
  return std::move(*x);
}

double ms_of(const std::function<void()>& work) {
  const auto began = clock_type::now();
  work();
  return std::chrono::duration<double, std::milli>(clock_type::now() - began).count();
}

/// A drained coppiced in which one request with all of the graph waits.
class full_node {
public:
  full_node(const fs::path& dir, const bench::derivation_graph& graph)
      : dir_(dir), node_(start(dir)), connection_(connect(node_.state_dir())) {
    if (auto done = bench::write_nix_store(graph, dir / "eval"); !done) throw std::runtime_error(done.error().what);
    run("coppice", {"submit", (dir / "eval/nix/store" / graph.root.base_name()).string()});
    for (auto end = clock_type::now() + 600s; clock_type::now() < end; std::this_thread::sleep_for(50ms)) {
      auto rows = call<request_summaries>("gateway", "status", get_requests{}).rows;
      auto counts = call<request_progress>("gateway", "poll", poll_request{rows.at(0).id, 0, 0}).counts;
      if (counts.planned + counts.queued == graph.derivations.size() && !queue(1).rows.empty()) return;
    }
    throw std::runtime_error("the request is not planned, see " + (dir / "coppiced.log").string());
  }

  template <class Reply, class Message>
  Reply call(const std::string& target, const std::string& method, const Message& m) {
    return need(connection_.call<Reply>(target, method, m, call_timeout));
  }
  job_queue queue(std::uint32_t limit) { return call<job_queue>("inspector", "queue", get_queue{0, limit}); }
  bench::cost run(const std::string& name, std::vector<std::string> words) {
    bench::command c;
    c.argv = {fs::read_symlink("/proc/self/exe").parent_path() / name};
    for (auto& word : words)
      c.argv.push_back(word);
    c.argv.insert(c.argv.end(), {"--state-dir", node_.state_dir().string()});
    c.log = dir_ / "clients.log";
    return need(bench::run(c));
  }

private:
  static bench::real_node start(const fs::path& dir) {
    fs::create_directories(dir / "state");
    std::ofstream{dir / "state/drained"} << "to measure\n";
    return need(bench::real_node::start(dir, ""));
  }
  static rt::connection connect(const fs::path& state_dir) {
    return need(rt::connection::connect(need(rt::try_state_dir(state_dir))));
  }

  fs::path dir_;
  bench::real_node node_;
  rt::connection connection_;
};

std::vector<bench::row> measure(const settings& s) {
  bench::work_dir work(s.dir);
  bench::graph_options o;
  o.packages_max = s.packages;
  auto graph = bench::make_debian_graph(o);
  if (!graph) throw std::runtime_error(to_string(graph.error()));
  full_node node(work.path(), *graph);
  const auto first = graph->derivations.front().first;
  std::vector<bench::row> rows{{"admin_queued", static_cast<double>(graph->derivations.size()), "drv"},
                               {"admin_in_queue", static_cast<double>(node.queue(1).total), "drv"}};
  auto add = [&](const std::string& name, const std::function<void()>& ask) {
    std::vector<double> times;
    for (std::size_t i = 0; i < s.repeats; ++i)
      times.push_back(ms_of(ask));
    rows.push_back({"admin_" + name + "_p50", bench::percentile(times, 0.5), "ms"});
    rows.push_back({"admin_" + name + "_max", bench::percentile(times, 1), "ms", answer_aim_ms, bench::at_most(1)});
  };
  add("tree", [&] { node.call<actor_tree>("observatory", "tree", get_tree{}); });
  add("queue", [&] { node.queue(1'000); });
  add("nodes", [&] { node.call<node_statuses>("inspector", "nodes", get_nodes{}); });
  add("partials", [&] { node.call<partial_outputs>("inspector", "partials", get_partials{}); });
  add("requests", [&] { node.call<request_summaries>("gateway", "status", get_requests{}); });
  add("failures", [&] { node.call<ledger::failure_rows>("observatory", "failures", ledger::read_failures{}); });
  add("locks", [&] { node.call<ledger::lock_states>("observatory", "locks", ledger::held_locks{}); });
  add("explain_root", [&] { node.call<explanation>("inspector", "explain", explain_query{graph->root}); });
  add("explain_leaf", [&] { node.call<explanation>("inspector", "explain", explain_query{first}); });
  auto add_program = [&](const std::string& name, const std::string& tool, const std::vector<std::string>& words) {
    add(name, [&] { node.run(tool, words); });
  };
  add_program("program_tree", "coppice-admin", {"tree"});
  add_program("program_queue", "coppice-admin", {"queue"});
  add_program("program_queue_all", "coppice-admin", {"queue", "-n", "1000000", "--json"});
  add_program("program_locks_all", "coppice-admin", {"locks", "--json"});
  add_program("program_requests", "coppice-admin", {"requests"});
  add_program("program_explain", "coppice", {"explain", graph->root.to_string()});
  return rows;
}

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"How long operators' questions take while a whole graph waits on a drained node: calls over ZeroMQ and "
               "CURVE to a real coppiced, and the programs as users start them. The aim itself: one second."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_option("--packages", s.packages, "of Debian's graph, the first ones")->capture_default_str();
  app.add_option("--repeats", s.repeats, "of each question")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--dir", s.dir, "a directory on a real disk (TMPDIR, or /var/tmp)");
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) {
      s.packages = 200;
      s.repeats = 2;
    }
    bench::print(measure(s), s.json);
    return {};
  });
}
