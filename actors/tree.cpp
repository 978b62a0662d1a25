#include "actors/tree.hpp"

#include "actors/admit/gateway.hpp"
#include "actors/build/fetcher.hpp"
#include "actors/build/worker_pool.hpp"
#include "actors/care/inspector.hpp"
#include "actors/care/observatory.hpp"
#include "actors/deliver/cache_server.hpp"
#include "actors/deliver/importer.hpp"
#include "actors/deliver/publisher.hpp"
#include "actors/deliver/store_uploader.hpp"
#include "actors/lock/ledger.hpp"
#include "actors/lock/lock_manager.hpp"
#include "actors/lock/session.hpp"
#include "actors/place/allocator.hpp"
#include "actors/plan/graph_keeper.hpp"
#include "actors/plan/substituter.hpp"

namespace coppice::actors {
namespace {

using namespace std::chrono_literals;

rt::supervisor_options supervise(rt::strategy how, std::size_t max_restarts, std::chrono::milliseconds within) {
  rt::supervisor_options o;
  o.how = how;
  o.restarts.max_restarts = max_restarts;
  o.restarts.within = within;
  return o;
}

expected<sandbox_settings> sandbox_of(const node_parts& parts) {
  sandbox_settings s;
  s.cores = parts.settings.cores;
  s.impure_env = parts.environment;
  s.fetch_program = find_program("coppice-fetch");
  s.ca_bundle = parts.ca_bundle;
  for (auto& text : parts.settings.sandbox_paths) {
    auto path = parse_sandbox_path(text);
    if (!path) return fail(ec::invalid, "sandbox_paths: " + path.error().what);
    s.paths.push_back(std::move(*path));
  }
  return s;
}

worker_state::config worker_config(const node_parts& parts, sandbox_settings sandbox) {
  worker_state::config c;
  c.node = parts.me.node;
  c.processes = parts.processes;
  c.pool = parts.pool;
  c.watch_pool = parts.watch_pool ? parts.watch_pool : parts.pool;
  c.clock = parts.clock;
  c.blobs = parts.blobs;
  c.local = parts.local;
  c.kept = parts.kept;
  c.cgroups = parts.cgroups;
  c.log_dir = parts.state_dir / "running";
  c.etc_dir = parts.state_dir / "etc";
  c.exec_program = find_program("coppice-exec");
  c.sandbox = std::move(sandbox);
  c.run_as = parts.run_as;
  c.limits = parts.settings.limits;
  if (!parts.cgroups->keeps_pids()) c.sandbox.processes_max = c.limits.processes_max;
  return c;
}

/// By what means memory and processes of builds are limited, for people.
std::string limits_kept_by(const rt::cgroup_root& groups, const limit_settings& limits) {
  auto means = [](std::uint64_t max, bool group, const char* else_by) {
    return max == 0 ? "not limited" : group ? "limited by control groups" : else_by;
  };
  return std::string("memory of builds is ") +
         means(limits.memory_bytes_max, groups.keeps_memory(), "looked at every second (no control group)") +
         ", processes are " +
         means(limits.processes_max, groups.keeps_pids(), "limited by rlimits and looked at every second (no control group)");
}

/// How a WORKER starts a STORE_UPLOADER without knowing it.
auto uploader_starter(const node_parts& parts, ledger_actor ledger, std::optional<importer_actor> importer,
                      rt::supervisor_actor uploads, event_port events) {
  store_uploader_state::config c;
  c.blobs = parts.blobs;
  c.pool = parts.pool;
  c.nar_bytes_max = parts.settings.limits.nar_bytes_max;
  c.compression.level = parts.settings.compression_level;
  c.importer = std::move(importer);
  c.events = std::move(events);
  c.compression.workers = 1; // so that a large output is hashed while it is compressed
  return [c, ledger, uploads](rt::self<worker_actor>* self, worker_state::upload_order o) {
    upload_task task{o.worker, o.drv, std::move(o.outputs), std::move(o.trees), std::move(o.kept_trees),
                     std::move(o.candidates), {}, o.registered, o.key, o.token};
    if (o.content) task.content = store::content_request{o.content->first, o.content->second};
    rt::child_options options;
    options.kind = rt::restart_kind::temporary;
    rt::start_child<store_uploader_state>(self, uploads, o.name, options, c, ledger, std::move(task))
      .then([self](const caf::strong_actor_ptr& ref) { self->monitor(caf::actor_cast<store_uploader_actor>(ref)); },
            [self](caf::error& e) {
              self->send(self->incarnation(), atom::failed_v, failure::infra,
                         "cannot start the upload: " + from_caf(e).what);
            });
  };
}

event_kind kind_of(rt::actor_change::kind what) {
  using kind = rt::actor_change::kind;
  switch (what) {
    case kind::started: return event_kind::actor_started;
    case kind::restarted: return event_kind::actor_restarted;
    case kind::died: return event_kind::actor_died;
    case kind::ended: return event_kind::actor_ended;
    case kind::given_up: return event_kind::actor_given_up;
    case kind::escalated: break;
  }
  return event_kind::actor_escalated;
}

/// The node's events, from now on: what supervisors see is told here, all else by whoever does it.
event_port begin_events(rt::directory& dir, const node_parts& parts) {
  if (!parts.keeps_events) return {};
  auto wall = parts.clock->wall_now().time_since_epoch();
  auto stream = std::chrono::duration_cast<std::chrono::milliseconds>(wall).count();
  event_port events{std::make_shared<event_log>(*parts.clock, parts.me.node, static_cast<std::uint64_t>(stream))};
  farm_event first;
  first.kind = event_kind::node_started;
  first.node = parts.me.node;
  first.text = parts.version;
  events.add(std::move(first));
  dir.observe([events](const rt::actor_change& c) {
    if (c.passing && c.what == rt::actor_change::kind::started) return; // its request, attempt or upload says so
    farm_event e;
    e.kind = kind_of(c.what);
    e.actor = c.path;
    e.duration_ms = std::chrono::duration_cast<std::chrono::milliseconds>(c.delay).count();
    if (c.reason) e.text = rt::describe_reason(c.reason);
    events.add(std::move(e));
  });
  return events;
}

} // namespace

expected<node_tree> declare_tree(rt::directory& dir, const node_parts& parts) {
  using rt::strategy;
  auto sandbox = sandbox_of(parts);
  if (!sandbox) return tl::unexpected(sandbox.error());

  auto events = begin_events(dir, parts);
  rt::tree root{dir, "/" + parts.me.node.value, supervise(strategy::one_for_one, 3, 60s)};
  auto& lock_sup = root.node("lock", supervise(strategy::rest_for_one, 5, 60s));
  auto& coord_sup = root.node("coord", supervise(strategy::one_for_one, 5, 60s));
  auto& work_sup = root.node("work", supervise(strategy::one_for_one, 5, 60s));
  auto& deliver_sup = root.node("deliver", supervise(strategy::one_for_one, 5, 60s));
  auto& graph_sup = coord_sup.node("graphs", supervise(strategy::dynamic, 10, 60s));
  auto& workers_sup = work_sup.node("workers", supervise(strategy::dynamic, 10, 60s));
  auto& uploads_sup = work_sup.node("uploads", supervise(strategy::dynamic, 10, 60s));

  // handles exist before anything runs, so that cycles are no trouble
  rt::ref_options busy;
  busy.max_in_flight = 65'536; // one stage's worth of requests, each small
  busy.max_buffered = 65'536;
  rt::child_options busy_child;
  busy_child.ref = busy;
  auto ledger = lock_sup.forward<ledger_actor>("ledger", busy);
  auto locks = lock_sup.forward<lock_manager_actor>("lock-manager", busy);
  auto keeper = coord_sup.forward<graph_keeper_actor>("graph-keeper", busy);
  auto pool = work_sup.forward<worker_pool_actor>("worker-pool", busy);
  auto publisher = deliver_sup.forward<publisher_actor>("publisher", busy);

  lease_times leases;
  ledger_state::config ledger_config;
  ledger_config.open = parts.open_ledger;
  ledger_config.leases = leases;
  ledger_config.clock = parts.clock;
  ledger_config.events = events;
  ledger_config.thread = parts.ledger_thread;
  lock_sup.child_with<ledger_state>("ledger", busy_child, ledger_config, ledger_state::watchers{locks, keeper, publisher});
  auto session = lock_sup.child<session_state>("session", session_state::config{parts.me, leases, parts.clock}, ledger);
  lock_sup.child_with<lock_manager_state>("lock-manager", busy_child, ledger, session);

  auto observatory =
    root.child<observatory_state>("observatory", observatory_state::config{parts.me.node, &dir, 100'000, events, parts.clock}, ledger);

  auto allocator = coord_sup.child_with<allocator_state>("allocator", busy_child, allocator_state::config{{}, parts.clock, 1s, events});
  rt::child_options patient;
  patient.ref.call_timeout = std::chrono::hours{1}; // inputs may be large
  rt::ref_options patiently = busy;
  patiently.call_timeout = patient.ref.call_timeout;
  std::optional<substituter_actor> substituter;
  std::optional<importer_actor> importer;
  if (parts.upstream) {
    substituter = work_sup.forward<substituter_actor>("substituter", patiently);
    importer = work_sup.forward<importer_actor>("importer", patiently);
  }
  graph_state::peers graph_peers{ledger, locks, allocator, observatory, substituter};
  graph_keeper_state::config keeper_config;
  keeper_config.me = parts.me.session;
  keeper_config.graph.blobs = parts.blobs;
  keeper_config.graph.pool = parts.pool;
  keeper_config.graph.clock = parts.clock;
  keeper_config.graph.events = events;
  keeper_config.graph.retry_first = parts.settings.failures.retry_first;
  keeper_config.graph.retry_max = parts.settings.failures.retry_max;
  keeper_config.graph.fail_unplaceable = parts.settings.failures.fail_unplaceable;
  keeper_config.directory = &dir;
  keeper_config.graphs_path = graph_sup.path();
  coord_sup.child_with<graph_keeper_state>("graph-keeper", busy_child, keeper_config, session, graph_peers, graph_sup.handle());

  cache_server_state::config cache_config;
  cache_config.listen = parts.settings.http;
  cache_config.blobs = parts.blobs;
  cache_config.log_dir = parts.state_dir / "running";
  cache_config.upload_dir = parts.state_dir / "uploads";
  cache_config.clock = parts.clock;
  cache_config.port = parts.http_port;
  cache_config.key = parts.signing_key.get();
  cache_config.url = parts.settings.http_url;
  cache_config.compression_level = parts.settings.compression_level;
  auto cache = deliver_sup.child<cache_server_state>("cache-server", cache_config, ledger);
  publisher_state::config publisher_config;
  publisher_config.blobs = parts.blobs;
  publisher_config.pool = parts.pool;
  publisher_config.key = parts.signing_key;
  deliver_sup.child_with<publisher_state>("publisher", busy_child, publisher_config, ledger);

  node_info about;
  about.node = parts.me.node;
  about.version = parts.version;
  about.public_key = parts.signing_key->public_key().to_string();
  about.store_dir = std::string(nix::default_store_dir);
  about.systems = parts.systems;
  gateway_state::config gateway_config;
  gateway_config.me = about;
  gateway_config.clock = parts.clock;
  auto gateway = coord_sup.child<gateway_state>("gateway", gateway_config, gateway_state::peers{ledger, keeper, cache});

  fetcher_state::config fetcher_config;
  fetcher_config.local = parts.local;
  fetcher_config.blobs = parts.blobs;
  fetcher_config.pool = parts.pool;
  fetcher_config.upstream = parts.upstream;
  fetcher_config.upstream_pool = parts.upstream_pool;
  auto fetcher = work_sup.child_with<fetcher_state>("fetcher", patient, fetcher_config, ledger, substituter);
  if (parts.upstream) {
    rt::child_options patient_child;
    patient_child.ref = patiently;
    importer_state::config importer_config;
    importer_config.local = parts.local;
    importer_config.blobs = parts.blobs;
    importer_config.pool = parts.pool;
    importer_config.key = parts.signing_key;
    importer_config.compression.level = parts.settings.compression_level;
    work_sup.child_with<importer_state>("importer", patient_child, importer_config, ledger);
    substituter_state::config substituter_config;
    substituter_config.ask = [u = parts.upstream](auto paths, auto done) { u->find(std::move(paths), std::move(done)); };
    work_sup.child_with<substituter_state>("substituter", patient_child, substituter_config,
                                           substituter_state::peers{ledger, fetcher, *importer});
  }
  worker_state::peers worker_peers{ledger,      locks, fetcher,
                                   observatory, pool,  workers_sup.handle(),
                                   uploader_starter(parts, ledger, importer, uploads_sup.handle(), events)};
  worker_pool_state::config pool_config;
  pool_config.worker = worker_config(parts, std::move(*sandbox));
  pool_config.session = parts.me.session;
  pool_config.born = parts.me.incarnation;
  pool_config.slots = parts.slots;
  pool_config.io_slots = std::max(1u, parts.settings.limits.io_jobs);
  pool_config.reserve = parts.settings.limits.reserve;
  pool_config.limits_kept = limits_kept_by(*parts.cgroups, parts.settings.limits);
  pool_config.disks = {parts.state_dir, parts.local->real_dir()};
  pool_config.drain_mark = parts.state_dir / "drained";
  pool_config.systems = parts.systems;
  pool_config.features = parts.settings.features;
  pool_config.directory = &dir;
  pool_config.workers_path = workers_sup.path();
  pool_config.uploads_path = uploads_sup.path();
  pool_config.make = parts.make_worker;
  pool_config.events = events;
  work_sup.child_with<worker_pool_state>("worker-pool", busy_child, pool_config, worker_peers,
                                         std::vector<allocator_actor>{allocator}, workers_sup.handle());
  inspector_state::config inspector_config;
  inspector_config.directory = &dir;
  inspector_config.graphs_path = graph_sup.path();
  inspector_config.blobs = parts.blobs;
  inspector_config.pool = parts.pool;
  inspector_config.clock = parts.clock;
  auto inspector = root.child<inspector_state>("inspector", inspector_config,
                                               inspector_state::peers{ledger, allocator, pool});
  return node_tree{std::move(root), gateway, observatory, inspector, cache};
}

} // namespace coppice::actors
