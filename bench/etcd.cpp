#include "bench/support/bench_main.hpp"
#include "bench/support/debian_graph.hpp"
#include "bench/support/idle_farm.hpp"
#include "bench/support/plain_etcd.hpp"
#include "bench/support/report.hpp"
#include "runtime/random.hpp"
#include "store/etcd_ledger.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iostream>

namespace {

using namespace coppice;
namespace fs = std::filesystem;

constexpr double locks_aim = 5;        // times the rate of plain transactions
constexpr double schedule_aim = 1'000; // derivations per second

struct settings {
  bool json = false, small = false;
  std::size_t packages = 1'000'000, in_flight = 64, rounds = 400, repeats = 3;
  std::uint32_t slots = 256;
  fs::path dir;
};

int free_port() {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof a;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size) != 0)
    throw std::runtime_error("no port is free");
  ::close(fd);
  return ntohs(a.sin_port);
}

/// One etcd on this machine, with fsync, as Debian has it.
class etcd_server {
public:
  explicit etcd_server(const fs::path& dir) : url_("http://127.0.0.1:" + std::to_string(free_port())) {
    auto peer = "http://127.0.0.1:" + std::to_string(free_port());
    bench::command c;
    c.argv = {"etcd",
              "--name",
              "m",
              "--data-dir",
              dir / "etcd",
              "--listen-client-urls",
              url_,
              "--advertise-client-urls",
              url_,
              "--listen-peer-urls",
              peer,
              "--initial-advertise-peer-urls",
              peer,
              "--initial-cluster",
              "m=" + peer,
              "--initial-cluster-token",
              rt::random_id<session_id>().to_string(),
              "--logger",
              "zap",
              "--log-level",
              "error"};
    c.log = dir / "etcd.log";
    auto started = bench::background::start(c);
    if (!started) throw std::runtime_error(to_string(started.error()));
    process_ = std::make_unique<bench::background>(std::move(*started));
    store::etcd::client_options o;
    o.endpoints = {url_};
    o.patience = std::chrono::seconds{30};
    if (auto ready = (*store::etcd::open_client(o))->range({"x", {}}); !ready)
      throw std::runtime_error(ready.error().what);
  }
  const std::string& url() const { return url_; }
  const bench::background& process() const { return *process_; }

private:
  std::string url_;
  std::unique_ptr<bench::background> process_;
};

store::etcd_ledger_options ledger_on(const etcd_server& etcd, const std::string& prefix) {
  store::etcd_ledger_options o;
  o.client.endpoints = {etcd.url()};
  o.prefix = prefix;
  o.node = {"bench"};
  return o;
}

inhash key(std::size_t n) {
  inhash k;
  for (std::size_t i = 0; i < 8; ++i)
    k.bytes[31 - i] = static_cast<std::uint8_t>(n >> (8 * i));
  k.bytes[0] = 1;
  return k;
}

/// What LEDGER does with so many callers, each of which takes a lock and gives it back: one batch of each in turns.
double ledger_locks(store::ledger_backend& ledger, std::size_t keys, std::size_t rounds) {
  const auto session = rt::random_id<session_id>();
  const auto request = rt::random_id<request_id>();
  auto run = [&](const std::vector<ledger::any_transaction>& batch) {
    ledger::changed changed;
    auto answers = ledger.run(batch, 1, changed);
    for (auto& a : answers)
      if (!a) throw std::runtime_error(to_string(a.error()));
    return answers;
  };
  static std::uint64_t incarnations = 0;
  run({ledger::open_session{{"bench"}, {++incarnations}, session}, ledger::submit{request, "bench", {}},
       ledger::adopt{request, session}});
  auto drv = *nix::store_path::from_base_name("00000000000000000000000000000000-step.drv");
  bench::stopwatch watch;
  for (std::size_t round = 0; round < rounds; ++round) {
    std::vector<ledger::any_transaction> batch;
    for (std::size_t k = 0; k < keys; ++k)
      batch.emplace_back(ledger::acquire{key(k), drv, request, {1}, {session, {}}});
    auto granted = run(batch);
    batch.clear();
    for (std::size_t k = 0; k < keys; ++k)
      batch.emplace_back(ledger::release{key(k), std::get<ledger::granted>(*granted[k]).token, failure::cancelled, {}, {}});
    run(batch);
  }
  return watch.since(0).wall_s;
}

std::vector<bench::row> locks(const settings& s, const etcd_server& etcd) {
  auto ledger = store::open_etcd_ledger(ledger_on(etcd, "/locks/"));
  const auto pairs = static_cast<double>(s.in_flight * s.rounds);
  std::vector<double> ours, plain, foreign;
  for (std::size_t i = 0; i < s.repeats; ++i) {
    auto cpu = bench::own_cpu_s() + etcd.process().cpu_s();
    bench::stopwatch watch;
    ours.push_back(pairs / ledger_locks(*ledger, s.in_flight, s.rounds));
    plain.push_back(pairs / bench::plain_etcd_locks(etcd.url(), "/plain/", s.in_flight, s.rounds));
    foreign.push_back(watch.since(bench::own_cpu_s() + etcd.process().cpu_s() - cpu).foreign);
    std::cerr << fmt::format("locks: {:.0f}/s, plain transactions {:.0f}/s\n", ours.back(), plain.back());
  }
  return {{"etcd_locks", bench::median(ours), "locks/s", bench::median(plain), bench::at_least(locks_aim)},
          {"etcd_locks_foreign", bench::median(foreign), "share"}};
}

std::vector<bench::row> schedule(const settings& s, const etcd_server& etcd, const fs::path& dir) {
  bench::graph_options o;
  o.packages_max = s.packages;
  auto graph = bench::make_debian_graph(o);
  if (!graph) throw std::runtime_error(to_string(graph.error()));
  const auto n = static_cast<double>(graph->derivations.size());
  auto options = ledger_on(etcd, "/schedule/");
  std::vector<bench::row> rows;
  auto server_cpu = etcd.process().cpu_s();
  {
    bench::idle_farm farm{{dir, s.slots, true, [options] { return store::open_etcd_ledger(options); }}};
    auto r = farm.run({std::move(graph->derivations), {graph->root}});
    if (r.built != static_cast<std::uint64_t>(n))
      throw std::runtime_error(fmt::format("{} of {} derivations were built", r.built, n));
    auto cpu = etcd.process().cpu_s() - server_cpu;
    rows.push_back({"etcd_schedule_rate", n / r.cost.wall_s, "drv/s", schedule_aim, bench::at_least(1)});
    rows.push_back({"etcd_schedule_cpu", r.cost.cpu_s / n * 1e6, "us/drv"});
    rows.push_back({"etcd_schedule_server_cpu", cpu / n * 1e6, "us/drv"});
    rows.push_back({"etcd_schedule_memory", static_cast<double>(r.memory_bytes) / n, "B/drv"});
    std::cerr << fmt::format("{:.0f} derivations in {:.2f} s, {:.2f} s CPU here, {:.2f} s in etcd\n", n, r.cost.wall_s,
                             r.cost.cpu_s, cpu);
  }
  bench::stopwatch watch;
  auto again = store::open_etcd_ledger(options);
  rows.push_back({"etcd_open", watch.since(0).wall_s / n * 1e6, "us/drv"});
  return rows;
}

} // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"The ledger in one etcd on this machine. Locks taken and given back through it, against plain etcd "
               "transactions of one key each, as many in flight; and derivations per second through a whole solo node "
               "whose builders do nothing (as bench schedule)."};
  app.add_flag("--json", s.json, "one JSON object a line");
  app.add_flag("--small", s.small, "a run of seconds that shows only that it works");
  app.add_option("--packages", s.packages, "of Debian's graph, the first ones (0: none)")->capture_default_str();
  app.add_option("--in-flight", s.in_flight, "locks at once")->capture_default_str();
  app.add_option("--rounds", s.rounds, "of taking and giving back all of them")->capture_default_str();
  app.add_option("--repeats", s.repeats, "of both, in turns; the median counts")->capture_default_str();
  app.add_option("--slots", s.slots, "builds at once")->capture_default_str();
  app.add_option("--dir", s.dir, "a directory on a real disk (TMPDIR, or /var/tmp)");
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) s.packages = 100, s.rounds = 5, s.repeats = 1;
    bench::work_dir work{s.dir};
    etcd_server etcd{work.path()};
    auto rows = locks(s, etcd);
    if (s.packages > 0)
      for (auto& row : schedule(s, etcd, work.path()))
        rows.push_back(std::move(row));
    bench::print(rows, s.json);
    return {};
  });
}
