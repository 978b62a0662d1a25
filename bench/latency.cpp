#include "bench/support/bench_main.hpp"
#include "bench/support/real_node.hpp"
#include "bench/support/report.hpp"
#include "bench/support/stock_nix.hpp"
#include "messages/client.hpp"
#include "nix/derivation.hpp"
#include "nix/hash_modulo.hpp"
#include "runtime/call.hpp"
#include "runtime/random.hpp"
#include "store/closure.hpp"

#include <fmt/format.h>
#include <httplib.h>

#include <fstream>
#include <iostream>
#include <thread>

namespace {

using namespace coppice;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr double p50_aim_ms = 10;
constexpr auto call_timeout = 60s;
constexpr std::chrono::nanoseconds build_timeout = 60s;

struct settings {
  bool json = false, small = false, no_rival = false;
  std::size_t requests = 300, rival = 50;
  fs::path dir;
};

template <class T, class E>
T need(tl::expected<T, E> x) {
  if (!x) throw std::runtime_error(x.error().what);
  return std::move(*x);
}

std::int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

/// From `began` to the time in the file.
double ms_until_stamp(std::int64_t began, const fs::path& file) {
  std::ifstream in(file);
  std::int64_t stamp = 0;
  if (!(in >> stamp)) throw std::runtime_error("no time in " + file.string());
  return static_cast<double>(stamp - began) * 1e-6;
}

/// A node, and one client's connection to it.
class requester {
public:
  requester(const fs::path& dir, const fs::path& tools)
      : node_(need(bench::real_node::start(dir, "sandbox_paths = [\"/stamp=" + tools.string() + "\"]\n")))
      , connection_(need(rt::connection::connect(need(rt::try_state_dir(node_.state_dir()))))) {}

  struct times {
    double first_instruction_ms, result_ms;
  };
  times build(const std::string& name) {
    nix::derivation drv;
    drv.name = name;
    drv.system = "x86_64-linux";
    drv.builder = "/stamp/coppice-bench-stamp";
    drv.env = {{"name", name}, {"out", ""}};
    drv.outputs["out"];
    nix::modulo_cache modulo{[](const nix::store_path&) { return nullptr; }};
    auto out = need(modulo.output_paths(drv)).at("out");
    drv.outputs["out"].path = out;
    drv.env["out"] = out.to_string();
    auto path = nix::derivation_path(drv);
    submit_request s{rt::random_id<request_id>(), {}};
    s.body.roots.push_back({path, {}});
    s.body.closure = upload(need(store::pack_closure({{path, nix::print_derivation(drv)}})));

    auto began = now_ns();
    (void)need(connection_.call<accepted>("gateway", "submit", s, call_timeout));
    for (poll_request p{s.id, 0, poll_wait_ms_max};;) {
      auto news = need(connection_.call<request_progress>("gateway", "poll", p, call_timeout));
      p.after = news.next;
      auto ended = now_ns();
      if (!news.result && ended - began < build_timeout.count()) continue;
      if (!news.result) throw std::runtime_error("not built within a minute: " + name);
      if (news.result->state != request_state::succeeded)
        throw std::runtime_error("not built: " + news.result->reason +
                                 (news.result->failures.empty() ? "" : news.result->failures[0].reason));
      return {ms_until_stamp(began, node_.state_dir() / "local/store" / out.base_name()),
              static_cast<double>(ended - began) * 1e-6};
    }
  }

private:
  blob_id upload(const std::string& packed) {
    auto id = store::closure_id(packed);
    auto lacks = need(connection_.call<missing>("gateway", "missing", find_missing{{}, id}, call_timeout));
    auto path = lacks.upload_url.find('/', lacks.upload_url.find("//") + 2);
    httplib::Client http(lacks.upload_url.substr(0, path));
    auto put = http.Put((lacks.upload_url.substr(path) + "/closure/" + id.to_string()).c_str(),
                        {{"Authorization", "Bearer " + lacks.ticket}}, packed, "application/octet-stream");
    if (!put || put->status / 100 != 2) throw std::runtime_error("the closure was not taken");
    return id;
  }

  bench::real_node node_;
  rt::connection connection_;
};

class latency {
public:
  explicit latency(const settings& s) : s_(s), work_(s.dir) {
    fs::permissions(work_.path(), fs::perms{0755}); // builders are another user
    fs::create_directories(tools_);
    fs::copy_file(fs::read_symlink("/proc/self/exe").parent_path() / "coppice-bench-stamp", stamp_);
  }

  std::vector<bench::row> run() {
    std::vector<double> nix;
    if (!s_.no_rival) nix = stock_nix();
    auto bwrap = bubblewrap();
    auto cpu = bench::own_cpu_s();
    bench::stopwatch watch;
    std::vector<double> first, result;
    {
      requester node{work_.path(), tools_};
      for (std::size_t i = 0; i < s_.requests; ++i) {
        auto t = node.build("stamp-" + std::to_string(i));
        first.push_back(t.first_instruction_ms);
        result.push_back(t.result_ms);
      }
    }
    std::vector<bench::row> rows;
    auto add = [&](const std::string& name, const std::vector<double>& values, double share,
                   const std::vector<double>& rival) {
      bench::row r{"latency_" + name, bench::percentile(values, share), "ms"};
      if (!rival.empty()) r.rival = bench::percentile(rival, share);
      rows.push_back(r);
    };
    rows.push_back({"latency_p50", bench::percentile(first, 0.5), "ms", p50_aim_ms, bench::at_most(1)});
    add("p50_nix", first, 0.5, nix);
    add("p99_nix", first, 0.99, nix);
    add("p50_bwrap", first, 0.5, bwrap);
    add("p99_bwrap", first, 0.99, bwrap);
    add("result_p50", result, 0.5, {});
    add("result_p99", result, 0.99, {});
    auto c = watch.since(bench::own_cpu_s() - cpu);
    rows.push_back({"latency_foreign", c.foreign, "share"});
    return rows;
  }

private:
  /// One `nix-store --realise` after the other, without sandbox, to the builder's first instruction.
  std::vector<double> stock_nix() {
    auto root = work_.path() / "nix";
    fs::create_directories(root);
    auto drvs = need(bench::instantiate(
        root, "map (n: derivation { name = \"stamp-${toString n}\"; system = builtins.currentSystem; builder = \"" +
                  stamp_.string() + "\"; }) (builtins.genList (n: n) " + std::to_string(s_.rival) + ")"));
    std::vector<double> all;
    for (auto& drv : drvs) {
      auto began = now_ns();
      auto done = need(bench::run(bench::nix_without_sandbox(root, {"nix-store", "--realise", drv})));
      all.push_back(ms_until_stamp(began, done.output.substr(0, done.output.find('\n'))));
    }
    return all;
  }
  /// The sandbox alone: what no farm that uses bubblewrap can go below.
  std::vector<double> bubblewrap() {
    auto out = work_.path() / "bwrap";
    fs::create_directories(out);
    std::vector<double> all;
    for (std::size_t i = 0; i < s_.rival; ++i) {
      auto began = now_ns();
      (void)need(bench::run(
          {{"bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", tools_, "/stamp", "--bind", out, "/out",
            "--proc", "/proc", "--dev", "/dev", "--setenv", "out", "/out/stamp", "/stamp/coppice-bench-stamp"},
           {},
           work_.path() / "bwrap.log"}));
      all.push_back(ms_until_stamp(began, out / "stamp"));
    }
    return all;
  }

  const settings& s_;
  bench::work_dir work_;
  fs::path tools_ = work_.path() / "tools", stamp_ = tools_ / "coppice-bench-stamp";
};

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{
      "From a request's way out of the client (ZeroMQ, CURVE) to its builder's first instruction in the sandbox "
      "of a real coppiced, one request after the other. Rivals: nix-store --realise of one derivation without "
      "sandbox, and bubblewrap alone."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_flag("--no-rival", s.no_rival, "do not run stock Nix");
  app.add_option("--requests", s.requests, "of one derivation each")->capture_default_str();
  app.add_option("--rival", s.rival, "runs of each rival")->capture_default_str();
  app.add_option("--dir", s.dir, "a directory on a real disk (TMPDIR, or /var/tmp)");
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) {
      s.requests = 5;
      s.rival = 2;
    }
    bench::print(latency{s}.run(), s.json);
    return {};
  });
}
