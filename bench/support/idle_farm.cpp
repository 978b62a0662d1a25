#include "bench/support/idle_farm.hpp"

#include "actors/deliver/cache_server.hpp"
#include "actors/tree.hpp"
#include "bench/support/idle_worker.hpp"
#include "bench/support/memory_blobs.hpp"
#include "messages/wire.hpp"
#include "runtime/pool.hpp"
#include "runtime/process_loop.hpp"
#include "runtime/random.hpp"
#include "store/closure.hpp"

#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>

#include <atomic>
#include <thread>

namespace coppice::bench {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

struct scheduler_config : caf::actor_system_config {
  scheduler_config() {
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", std::size_t{std::max(1u, std::thread::hardware_concurrency())});
  }
};

template <class T>
T need(expected<T> x) {
  if (!x) throw std::runtime_error(to_string(x.error()));
  return std::move(*x);
}
void need(expected<void> x) {
  if (!x) throw std::runtime_error(to_string(x.error()));
}

/// How long an answer about events may wait for some.
constexpr std::uint32_t follow_wait_ms = 200;

const blob_id output_blob = [] {
  blob_id b;
  b.bytes[0] = 1;
  return b;
}();

} // namespace

struct idle_farm::impl {
  explicit impl(const options& o)
      : dir(o.dir)
      , local(need(store::local_store::open({dir / "local", "/nix/store", {}, {}, true})))
      , kept(need(store::kept_journal::open(dir / "kept")))
      , pool(std::max(1u, std::thread::hardware_concurrency()), 65'536)
      , ledger_thread(1, 16) {
    actors::node_parts parts;
    parts.settings.http = "127.0.0.1:0";
    parts.state_dir = dir;
    parts.me = {{"bench"}, rt::random_id<session_id>(), {1}};
    parts.version = "bench";
    parts.open_ledger = o.open_ledger;
    if (!parts.open_ledger)
      parts.open_ledger = [file = dir / "ledger.sqlite"] { return store::open_sqlite_ledger(file); };
    parts.blobs = &blobs;
    parts.local = local.get();
    parts.kept = &kept;
    parts.processes = &processes;
    parts.pool = &pool;
    parts.ledger_thread = &ledger_thread;
    parts.clock = &clock;
    parts.cgroups = &cgroups;
    parts.signing_key = std::make_shared<nix::secret_key>(*nix::secret_key::generate("bench-1"));
    parts.systems = {"x86_64-linux"};
    parts.slots = o.slots;
    parts.http_port = &http_port;
    parts.make_worker = idle_workers(output_blob);
    parts.keeps_events = o.events;
    events = o.events;
    tree.emplace(need(actors::declare_tree(directory, parts)));
    root = tree->root.run();
    ledger = directory.find_as<ledger_actor>("/bench/lock/ledger");
    transact(ledger::register_blob{output_blob, {1}, 100});
  }
  ~impl() {
    rt::shut_down_and_wait(system, root, 20s);
    pool.close();
    ledger_thread.close();
    root = nullptr;

    tree.reset();
  }

  template <class Answer, class Handle, class... Ts>
  Answer ask(const Handle& to, Ts... xs) {
    caf::scoped_actor self{system};
    expected<Answer> result = fail(ec::deadline, "no answer");
    self->request(to, 120s, std::move(xs)...)
        .receive([&](Answer& x) { result = std::move(x); },
                 [&](caf::error& e) { result = tl::unexpected(from_caf(e)); });
    return need(std::move(result));
  }
  void transact(ledger::any_transaction t) {
    (void)ask<ledger::answer>(ledger, atom::transact_v, ledger::transaction{std::move(t)});
  }

  fs::path dir;
  memory_blobs blobs;
  std::unique_ptr<store::local_store> local;
  store::kept_journal kept;
  rt::cgroup_root cgroups{"bench"};
  actors::bound_port http_port{};
  rt::real_clock clock;
  rt::process_loop processes;
  rt::pool pool, ledger_thread;
  scheduler_config config;
  caf::actor_system system{config};
  rt::directory directory{system};
  std::optional<actors::node_tree> tree;
  caf::strong_actor_ptr root;
  ledger_actor ledger;
  bool events = true;
  std::atomic<std::uint64_t> followed_bytes{0};
  std::jthread follow();
};

/// Asks for all events until it is told to stop, and makes of them the bytes that BRIDGE would send.
std::jthread idle_farm::impl::follow() {
  return std::jthread([this](const std::stop_token& stop) {
    follow_events q;
    q.after = events_from_now;
    for (caller who{"bench", role::observer}; !stop.stop_requested(); q.wait_ms = follow_wait_ms) {
      auto page = ask<event_page>(tree->observatory, atom::events_v, who, q);
      followed_bytes += wire::encode(page).size();
      q.stream = page.stream;
      q.after = page.next;
    }
  });
}

idle_farm::idle_farm(const options& o) : impl_(std::make_unique<impl>(o)) {}
idle_farm::~idle_farm() = default;

idle_farm::result idle_farm::run(const request& r) {
  auto& me = *impl_;
  submit_request s;
  s.id = rt::random_id<request_id>();
  for (auto& root : r.roots)
    s.body.roots.push_back({root, {}});
  {
    auto bytes = need(store::pack_closure(r.derivations));
    s.body.closure = store::closure_id(bytes);
    need(me.blobs.put(store::closure_key(s.body.closure, {1}), bytes));
    me.transact(ledger::register_blob{s.body.closure, {1}, bytes.size()});
  }
  auto follower = me.events ? me.follow() : std::jthread{};
  auto threads = threads_now();
  auto memory = resident_bytes();
  auto cpu = own_cpu_s();
  stopwatch watch;
  caller who{"bench", role::submitter};
  (void)me.ask<accepted>(*me.tree->gateway, atom::submit_v, who, s);
  result c;
  for (poll_request p{s.id, 0, poll_wait_ms_max};;) {
    auto news = me.ask<request_progress>(*me.tree->gateway, atom::poll_v, who, p);
    c.memory_bytes = std::max(c.memory_bytes, resident_bytes() - memory);
    p.after = news.next;
    if (!news.result) continue;
    if (news.result->state != request_state::succeeded)
      throw std::runtime_error("the request did not succeed: " + news.result->reason +
                               (news.result->failures.empty() ? "" : news.result->failures[0].reason));
    c.built = news.result->built;
    break;
  }
  c.cost = watch.since(own_cpu_s() - cpu);
  c.busiest = busiest_since(threads);
  follower = {};
  c.followed_bytes = me.followed_bytes;
  for (auto& f : fs::directory_iterator(me.dir))
    if (f.path().filename().string().starts_with("ledger.sqlite")) c.ledger_bytes += f.file_size();
  return c;
}

} // namespace coppice::bench
