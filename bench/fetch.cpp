#include "actors/build/fetch_work.hpp"
#include "actors/deliver/cache_server.hpp"
#include "bench/support/bench_main.hpp"
#include "bench/support/measure.hpp"
#include "bench/support/report.hpp"
#include "messages/wire.hpp"
#include "runtime/supervisor.hpp"
#include "store/directory_blob_store.hpp"
#include "store/files.hpp"
#include "store/http_blob_store.hpp"
#include "store/pack.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <optional>
#include <random>
#include <thread>

using namespace coppice;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

/// Fetching an input as FETCHER has it done, against curl of the same URL.
namespace {

constexpr double mega = 1e6;

struct settings {
  bool json = false, small = false;
  std::size_t rounds = 5, mb = 500;
  std::string child; // what this process is to do, as a child
  fs::path root;
};

const nix::store_path path = *nix::store_path::from_base_name("00000000000000000000000000000000-object");

fs::path holder_dir(const fs::path& root) {
  return root / "holder";
}
fs::path cache_dir(const fs::path& root) {
  return root / "cache";
}
fs::path words_file(const fs::path& root) {
  return root / "server";
}

template <class T>
T need(expected<T> x) {
  if (!x) throw std::runtime_error(to_string(x.error()));
  return std::move(*x);
}
void need(expected<void> x) {
  if (!x) throw std::runtime_error(to_string(x.error()));
}

std::unique_ptr<store::local_store> open_local(const fs::path& root) {
  store::local_store_options o;
  o.root = root;
  o.belongs_to = {::geteuid(), ::getegid()};
  return need(store::local_store::open(o));
}

/// A directory of large and small files, half of which compress.
void make_tree(const fs::path& dir, std::size_t bytes) {
  std::mt19937_64 random{1};
  std::string block(1 << 20, '\0');
  fs::create_directories(dir);
  for (std::size_t file = 0; bytes > 0; ++file) {
    std::ofstream out{dir / ("f" + std::to_string(file)), std::ios::binary};
    for (std::size_t left = std::min<std::size_t>(bytes, file % 2 ? 16 << 20 : 64 << 10); left > 0;) {
      const auto size = std::min(left, block.size());
      for (std::size_t i = 0; i + 8 <= size; i += 8) {
        const auto word = i % 4096 < 2048 ? random() : 0x2020202020202020u;
        std::memcpy(block.data() + i, &word, 8);
      }
      out.write(block.data(), static_cast<std::streamsize>(size));
      left -= size;
      bytes -= size;
    }
  }
}

/// Puts the object into the holder's own store and into the farm's.
path_info prepare(const fs::path& root, std::size_t bytes) {
  const auto local = open_local(holder_dir(root));
  const auto blobs = need(store::directory_blob_store::open_dir(cache_dir(root)));
  const auto tree = need(local->staging()) / "tree";
  make_tree(tree, bytes);
  need(store::canonicalise(tree, {::geteuid(), ::getegid()}));
  auto packed = need(store::pack(tree, blobs.get(), {}));
  need(packed.writer->commit(store::nar_key(packed.blob, generation{1})));
  auto info = store::to_path_info(path, packed, std::nullopt, "", generation{1});
  need(local->add_outputs({{info, tree}}));
  return info;
}

/// Child: a machine that holds the object and has the farm's store; says where it serves and by whose leave.
expected<void> serve(const settings& s) {
  const auto local = open_local(holder_dir(s.root));
  const auto blobs = need(store::directory_blob_store::open_dir(cache_dir(s.root)));
  const rt::real_clock clock;
  fs::create_directories(s.root / "logs");
  actors::cache_server_state::config c;
  c.blobs = blobs.get();
  c.local = local.get();
  c.log_dir = s.root / "logs";
  c.upload_dir = s.root / "uploads";
  c.clock = &clock;
  caf::actor_system_config config;
  config.set("scheduler.policy", caf::atom("sharing"));
  caf::actor_system system{config};
  const auto server = rt::spawn<actors::cache_server_state>(system, c, ledger_actor{});
  caf::scoped_actor me{system};
  me->request(server, 30s, atom::open_v, get_ticket{})
      .receive(
          [&](const upload_ticket& t) {
            need(store::replace_file(words_file(s.root), t.url + "\n" + t.ticket + "\n"));
          },
          [](caf::error& e) { throw std::runtime_error(to_string(from_caf(e))); });
  std::this_thread::sleep_for(24h); // it is killed
  return {};
}

struct server_words {
  std::string url, ticket;
};
server_words read_words(const fs::path& root) {
  std::ifstream in{words_file(root)};
  server_words w;
  if (!std::getline(in, w.url) || !std::getline(in, w.ticket)) return {};
  return w;
}

/// What the ledger would say of it.
fs::path info_file(const fs::path& root) {
  return root / "info";
}
path_info read_info(const fs::path& root) {
  return need(wire::decode<path_info>(need(store::read_file(info_file(root), 1 << 20))));
}

/// Child: what FETCHER has done with one path.
expected<void> fetch(const settings& s) {
  const auto w = read_words(s.root);
  const std::atomic<bool> stop{false};
  store::http_blob_options o;
  o.url = [&]() -> expected<std::string> { return w.url; };
  o.ticket = [&](bool) -> expected<std::string> { return w.ticket; };
  o.scratch_dir = s.root / "scratch";
  o.stop = &stop;
  const auto blobs = need(store::open_http_blob_store(std::move(o)));
  const auto local = open_local(s.root / "fetched");
  store::held_fetch held{stop};
  std::vector<ledger::path_holder> holders;
  if (s.child == "held") holders.push_back({path, {"holder"}, w.url});
  const auto report = actors::fetch_path({blobs.get(), local.get(), &held}, read_info(s.root), holders);
  if (report.done && s.child == "held" && report.store_bytes > 0) return fail(ec::io, "the holder did not serve");
  return report.done;
}

expected<void> run_fetch(const std::string& what, const fs::path& root, bench::samples& into) {
  const auto cost = bench::run({{"/proc/self/exe", "--child", what, "--root", root}, {}, root / "log"});
  need(store::remove_tree(root / "fetched"));
  if (!cost) return tl::unexpected(cost.error());
  into.add(*cost);
  return {};
}

expected<void> run_shell(const fs::path& root, const std::string& line, bench::samples& into) {
  const auto cost = bench::run({{"sh", "-ec", line}, {}, root / "log"});
  fs::remove(root / "file");
  if (!cost) return tl::unexpected(cost.error());
  into.add(*cost);
  return {};
}

expected<void> compare(const settings& s, const fs::path& root, const std::string& name, const std::string& url,
                       double bytes, std::optional<bench::aim> aim, std::vector<bench::row>& rows) {
  const auto file = (root / "file").string(), curl = "curl --silent --fail --noproxy '*' -o " + file + " " + url;
  bench::samples ours, plain, synced, hashed;
  for (std::size_t round = 0; round < s.rounds; ++round) {
    auto done = run_shell(root, curl, plain)
                    .and_then([&] { return run_fetch(name, root, ours); })
                    .and_then([&] { return run_shell(root, curl + "; sync " + file, synced); })
                    .and_then([&] { return run_shell(root, curl + "; sha256sum " + file, hashed); });
    if (!done) return done;
  }
  using bench::median;
  const auto rate = [mb = bytes / mega](const std::vector<double>& seconds) { return mb / median(seconds); };
  rows.push_back({"fetch_" + name + "_bytes", bytes / mega, "MB"});
  rows.push_back({"fetch_" + name + "_of_curl", rate(ours.wall_s), "MB/s", rate(plain.wall_s), aim});
  rows.push_back({"fetch_" + name + "_of_synced", rate(ours.wall_s), "MB/s", rate(synced.wall_s)});
  rows.push_back({"fetch_" + name + "_cpu", median(ours.cpu_s), "s", median(hashed.cpu_s)});
  rows.push_back({"fetch_" + name + "_foreign", median(ours.foreign), "share"});
  return {};
}

expected<void> compare_all(const settings& s) {
  const bench::work_dir dir;
  const auto& root = dir.path();
  const auto info = prepare(root, s.mb * 1'000'000);
  need(store::replace_file(info_file(root), wire::encode(info)));
  auto server =
      bench::background::start({{"/proc/self/exe", "--child", "serve", "--root", root}, {}, root / "server.log"});
  if (!server) return tl::unexpected(server.error());
  while (read_words(root).ticket.empty()) {
    if (!server->running())
      return fail(ec::io, "the server ended: " + store::read_file(root / "server.log", 4096).value_or(""));
    std::this_thread::sleep_for(10ms);
  }
  const auto url = read_words(root).url;
  std::vector<bench::row> rows;
  const auto held_bytes = static_cast<double>(info.nar_size), blob_bytes = static_cast<double>(info.blob_size);
  auto done = compare(s, root, "held", url + store::held_target(info), held_bytes, bench::at_least(0.5), rows);
  if (done) // no aim: curl leaves it compressed
    done = compare(s, root, "store", url + "/" + store::nar_key(info.blob, info.gen), blob_bytes, std::nullopt, rows);
  if (done) bench::print(rows, s.json);
  return done;
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Fetching one input from another machine over HTTP on loopback: from the machine that built it, and from the "
      "farm's store. Against curl of the same URL into a file, in turns."};
  settings s;
  app.add_flag("--json", s.json, "One line of JSON for each figure");
  app.add_flag("--small", s.small, "Little data, once: to see that it runs");
  app.add_option("--rounds", s.rounds, "Times to run each; the median counts")->capture_default_str();
  app.add_option("--mb", s.mb, "Size of the input")->capture_default_str();
  app.add_option("--child", s.child)->group("");
  app.add_option("--root", s.root)->group("");
  return bench::bench_main(app, argc, argv, [&]() -> expected<void> {
    if (s.small) {
      s.rounds = 1;
      s.mb = 3;
    }
    return s.child.empty() ? compare_all(s) : s.child == "serve" ? serve(s) : fetch(s);
  });
}
