#include "actors/tree.hpp"

#include "actors/admit/gateway.hpp"
#include "actors/build/fetcher.hpp"
#include "actors/build/worker_pool.hpp"
#include "actors/capacity.hpp"
#include "actors/care/inspector.hpp"
#include "actors/care/key_keeper.hpp"
#include "actors/care/observatory.hpp"
#include "actors/deliver/cache_server.hpp"
#include "actors/deliver/importer.hpp"
#include "actors/deliver/publisher.hpp"
#include "actors/deliver/store_uploader.hpp"
#include "actors/lock/ledger.hpp"
#include "actors/lock/ledger_link.hpp"
#include "actors/lock/lock_manager.hpp"
#include "actors/lock/session.hpp"
#include "actors/place/allocator.hpp"
#include "actors/plan/graph_keeper.hpp"
#include "actors/plan/substituter.hpp"

#include <thread>

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

/// All else waits for it, and leases run meanwhile: the longest pause is a small part of one.
rt::supervisor_options supervise_error_kernel() {
  auto o = supervise(rt::strategy::rest_for_one, 5, 60s);
  o.restarts.backoff_max = 2s;
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
  c.jail_program = find_program("coppice-jail");
  c.freeze_max = parts.settings.lease.freeze_max;
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
  event_port events{std::make_shared<event_log>(*parts.clock, parts.me.node, static_cast<std::uint64_t>(stream),
                                                parts.settings.events_max)};
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

/// Declares a node's subtrees, each function one of them, those that others stand on first.
class planting {
public:
  planting(rt::directory& dir, const node_parts& parts, sandbox_settings sandbox, lease_times leases);
  /// The error levels and the order of the tree in docs/architecture.md.
  void lock();
  void care();
  void coordinate();
  void work();
  void deliver();
  void inspect();
  node_tree take() && { return {std::move(root_), gateway_, *observatory_, inspector_, *cache_}; }

private:
  bool member() const { return !parts_.hub.empty(); }
  /// The path of an actor on the hub.
  std::string at_hub(const char* path) const { return "/" + parts_.hub.value + path; }
  template <class Interface>
  Interface hub(const char* path) const {
    return parts_.mesh->remote<Interface>(parts_.hub, at_hub(path));
  }
  /// Lets other nodes call it, if there can be any.
  template <class Interface>
  void expose(const char* path) const {
    if (parts_.mesh) parts_.mesh->expose<Interface>("/" + parts_.me.node.value + path);
  }

  rt::directory& dir_;
  const node_parts& parts_;
  sandbox_settings sandbox_;
  event_port events_;
  lease_times leases_;
  rt::tree root_;
  rt::tree &lock_sup_, &coord_sup_, &work_sup_, &deliver_sup_, &graph_sup_, &workers_sup_, &uploads_sup_;
  rt::ref_options busy_ = [] { // one stage's worth of requests, each small
    rt::ref_options o;
    o.max_in_flight = o.max_buffered = 65'536;
    return o;
  }();
  rt::child_options busy_child_ = [this] {
    rt::child_options o;
    o.ref = busy_;
    return o;
  }();
  rt::ref_options patiently_ = [this] { // inputs may be large
    auto o = busy_;
    o.call_timeout = std::chrono::hours{1};
    return o;
  }();
  // handles exist before anything runs, so that cycles are no trouble
  ledger_actor ledger_ = lock_sup_.forward<ledger_actor>("ledger", busy_);
  lock_manager_actor locks_ = lock_sup_.forward<lock_manager_actor>("lock-manager", busy_);
  worker_pool_actor pool_ = work_sup_.forward<worker_pool_actor>("worker-pool", busy_);
  std::optional<graph_keeper_actor> keeper_; ///< as all that follow: none on a member
  std::optional<publisher_actor> publisher_;
  std::optional<allocator_actor> allocator_;
  std::optional<substituter_actor> substituter_;
  std::optional<importer_actor> importer_;
  std::optional<gateway_actor> gateway_;
  std::optional<inspector_actor> inspector_;
  std::optional<session_actor> session_;
  std::optional<observatory_actor> observatory_;
  std::optional<cache_server_actor> cache_;
};

planting::planting(rt::directory& dir, const node_parts& parts, sandbox_settings sandbox, lease_times leases)
    : dir_(dir)
    , parts_(parts)
    , sandbox_(std::move(sandbox))
    , events_(begin_events(dir, parts))
    , leases_(leases)
    , root_{dir, "/" + parts.me.node.value, supervise(rt::strategy::one_for_one, 3, 60s)}
    , lock_sup_(root_.node("lock", supervise_error_kernel()))
    , coord_sup_(root_.node("coord", supervise(rt::strategy::one_for_one, 5, 60s)))
    , work_sup_(root_.node("work", supervise(rt::strategy::one_for_one, 5, 60s)))
    , deliver_sup_(root_.node("deliver", supervise(rt::strategy::one_for_one, 5, 60s)))
    , graph_sup_(coord_sup_.node("graphs", supervise(rt::strategy::dynamic, 10, 60s)))
    , workers_sup_(work_sup_.node("workers", supervise(rt::strategy::dynamic, 10, 60s)))
    , uploads_sup_(work_sup_.node("uploads", supervise(rt::strategy::dynamic, 10, 60s))) {
  if (!member()) {
    keeper_ = coord_sup_.forward<graph_keeper_actor>("graph-keeper", busy_);
    publisher_ = deliver_sup_.forward<publisher_actor>("publisher", busy_);
  }
  if (parts_.upstream && !member()) {
    substituter_ = work_sup_.forward<substituter_actor>("substituter", patiently_);
    importer_ = work_sup_.forward<importer_actor>("importer", patiently_);
  }
}

void planting::lock() {
  if (member()) {
    lock_sup_.child_with<ledger_link_state>("ledger", busy_child_, ledger_link_state::config{parts_.me.session, parts_.hub},
                                            hub<farm_ledger_actor>("/lock/ledger"), locks_);
  } else {
    ledger_state::config c;
    c.open = parts_.open_ledger;
    c.leases = leases_;
    c.clock = parts_.clock;
    c.events = events_;
    c.thread = parts_.ledger_thread;
    c.own = parts_.me.session;
    lock_sup_.child_with<ledger_state>("ledger", busy_child_, c, ledger_state::watchers{locks_, *keeper_, *publisher_});
    expose<farm_ledger_actor>("/lock/ledger");
  }
  // one elsewhere goes on without this process, and gives another what this one held
  const bool keeps_ledger = !member() && parts_.settings.ledger.etcd.empty();
  session_ = lock_sup_.child<session_state>("session", session_state::config{parts_.me, leases_, parts_.clock, keeps_ledger, url_for_others(parts_.settings)}, ledger_);
  lock_sup_.child_with<lock_manager_state>("lock-manager", busy_child_, ledger_, *session_);
}

void planting::care() {
  observatory_state::config c{parts_.me.node, &dir_, 100'000, events_, parts_.clock};
  if (member())
    c.hub = hub<progress_actor>("/observatory");
  else
    expose<progress_actor>("/observatory");
  observatory_ = root_.child<observatory_state>("observatory", c, ledger_);
  if (parts_.authorize)
    root_.child_with<key_keeper_state>("key-keeper", {},
                                       key_keeper_state::config{parts_.authorized, parts_.authorize, parts_.pool});
}

void planting::coordinate() {
  if (member()) return;
  allocator_state::config allocator{{}, parts_.clock, 1s, events_};
  allocator.machines_file = parts_.state_dir / "machines";
  allocator.pool = parts_.watch_pool ? parts_.watch_pool : parts_.pool;
  allocator_ = coord_sup_.child_with<allocator_state>("allocator", busy_child_, allocator);
  expose<offers_actor>("/coord/allocator");
  graph_state::peers peers{ledger_, locks_, *allocator_, *observatory_, substituter_};
  graph_keeper_state::config c;
  c.me = parts_.me.session;
  c.graph.blobs = parts_.blobs;
  c.graph.pool = parts_.pool;
  c.graph.clock = parts_.clock;
  c.graph.events = events_;
  c.graph.retry_first = parts_.settings.failures.retry_first;
  c.graph.retry_max = parts_.settings.failures.retry_max;
  c.graph.fail_unplaceable = parts_.settings.failures.fail_unplaceable;
  c.directory = &dir_;
  c.graphs_path = graph_sup_.path();
  coord_sup_.child_with<graph_keeper_state>("graph-keeper", busy_child_, c, *session_, peers, graph_sup_.handle());
}

void planting::deliver() {
  cache_server_state::config cache;
  cache.listen = parts_.settings.http;
  cache.blobs = parts_.blobs;
  cache.local = parts_.local;
  cache.log_dir = parts_.state_dir / "running";
  cache.upload_dir = parts_.state_dir / "uploads";
  cache.clock = parts_.clock;
  cache.port = parts_.http_port;
  cache.key = parts_.signing_key.get();
  cache.url = parts_.settings.http_url;
  cache.compression_level = parts_.settings.compression_level;
  if (parts_.settings.s3.redirect) cache.urls = parts_.blob_urls;
  cache.urls_valid = std::chrono::ceil<std::chrono::seconds>(parts_.settings.s3.url_valid);
  cache.node = parts_.me.node;
  if (parts_.mesh && !member())
    cache.cache_of = [mesh = parts_.mesh](const node_id& node) {
      return mesh->remote<tickets_actor>(node, "/" + node.value + "/deliver/cache-server");
    };
  cache_ = deliver_sup_.child<cache_server_state>("cache-server", cache, ledger_);
  expose<tickets_actor>("/deliver/cache-server");
  if (member()) return;
  publisher_state::config c;
  c.blobs = parts_.blobs;
  c.pool = parts_.pool;
  c.key = parts_.signing_key;
  deliver_sup_.child_with<publisher_state>("publisher", busy_child_, c, ledger_);

  node_info about;
  about.node = parts_.me.node;
  about.version = parts_.version;
  about.public_key = parts_.signing_key->public_key().to_string();
  about.store_dir = std::string(nix::default_store_dir);
  about.systems = parts_.systems;
  gateway_state::config gateway;
  gateway.me = about;
  gateway.clock = parts_.clock;
  gateway.cache_of = cache.cache_of;
  gateway_ = coord_sup_.child<gateway_state>("gateway", gateway, gateway_state::peers{ledger_, *keeper_, *cache_});
}

void planting::work() {
  rt::child_options patient;
  patient.ref.call_timeout = patiently_.call_timeout;
  fetcher_state::config fetcher_config;
  fetcher_config.local = parts_.local;
  fetcher_config.blobs = parts_.blobs;
  fetcher_config.pool = parts_.fetch_pool ? parts_.fetch_pool : parts_.pool;
  fetcher_config.clock = parts_.clock;
  fetcher_config.plan.me = parts_.me.node;
  fetcher_config.plan.store_is_here = !member() && parts_.settings.s3.bucket.empty();
  fetcher_config.held = parts_.held;
  fetcher_config.upstream = substituter_ ? parts_.upstream : nullptr;
  fetcher_config.upstream_pool = parts_.upstream_pool;
  fetcher_state::peers fetcher_peers{ledger_, substituter_};
  if (member()) fetcher_peers.hub = hub<upstream_actor>("/work/substituter");
  if (substituter_) expose<upstream_actor>("/work/substituter");
  auto fetcher = work_sup_.child_with<fetcher_state>("fetcher", patient, fetcher_config, fetcher_peers);
  if (substituter_) {
    rt::child_options patient_child;
    patient_child.ref = patiently_;
    importer_state::config importer;
    importer.local = parts_.local;
    importer.blobs = parts_.blobs;
    importer.pool = parts_.pool;
    importer.key = parts_.signing_key;
    importer.compression.level = parts_.settings.compression_level;
    work_sup_.child_with<importer_state>("importer", patient_child, importer, ledger_);
    substituter_state::config c;
    c.ask = [u = parts_.upstream](auto paths, auto done) { u->find(std::move(paths), std::move(done)); };
    work_sup_.child_with<substituter_state>("substituter", patient_child, c,
                                            substituter_state::peers{ledger_, fetcher, *importer_});
  }
  worker_state::peers peers{ledger_,       locks_, *session_, fetcher,
                            *observatory_, pool_,  workers_sup_.handle(),
                            uploader_starter(parts_, ledger_, importer_, uploads_sup_.handle(), events_)};
  worker_pool_state::config c;
  c.worker = worker_config(parts_, std::move(sandbox_));
  c.session = parts_.me.session;
  c.born = parts_.me.incarnation;
  c.slots = parts_.slots;
  c.io_slots = std::max(1u, parts_.settings.limits.io_jobs);
  c.share = share_of(parts_.settings, c.slots, std::thread::hardware_concurrency());
  c.worker.sandbox.cores = c.share.each.cores; // what reserves none is told as many, too
  c.reserve = parts_.settings.limits.reserve;
  c.pressure = parts_.settings.limits.pressure;
  c.limits_kept = limits_kept_by(*parts_.cgroups, parts_.settings.limits);
  c.disks = {parts_.state_dir, parts_.local->real_dir()};
  c.drain_mark = parts_.state_dir / "drained";
  c.systems = parts_.systems;
  c.features = parts_.settings.features;
  c.mandatory_features = parts_.settings.mandatory_features;
  c.features.insert(c.features.end(), c.mandatory_features.begin(), c.mandatory_features.end());
  c.version = parts_.version;
  c.http_url = url_for_others(parts_.settings);
  c.directory = &dir_;
  c.workers_path = workers_sup_.path();
  c.uploads_path = uploads_sup_.path();
  c.make = parts_.make_worker;
  c.events = events_;
  std::vector<offers_actor> allocators;
  allocators.push_back(member() ? hub<offers_actor>("/coord/allocator") : offers_actor{*allocator_});
  work_sup_.child_with<worker_pool_state>("worker-pool", busy_child_, c, peers, std::move(allocators),
                                          workers_sup_.handle());
  if (!member()) return;
  expose<machine_actor>("/work/worker-pool");
  // what was said to a hub that was away is repeated in a few seconds; whoever waits for this machine need not
  parts_.mesh->observe([hub = parts_.hub, link = caf::actor_cast<ledger_link_actor>(ledger_), session = *session_,
                        pool = pool_](const node_id& node, bool up) {
    if (!up || node != hub) return;
    caf::anon_send(link, atom::watch_v);
    caf::anon_send(session, atom::tick_v);
    caf::anon_send(pool, atom::offer_v);
  });
}

void planting::inspect() {
  if (member()) return;
  inspector_state::config c;
  c.directory = &dir_;
  c.graphs_path = graph_sup_.path();
  c.blobs = parts_.blobs;
  c.pool = parts_.pool;
  c.clock = parts_.clock;
  c.node = parts_.me.node;
  if (parts_.mesh)
    c.machine_of = [mesh = parts_.mesh](const node_id& node) {
      return mesh->remote<machine_actor>(node, "/" + node.value + "/work/worker-pool");
    };
  inspector_ = root_.child<inspector_state>("inspector", c, inspector_state::peers{ledger_, *allocator_, pool_});
}

} // namespace

expected<node_tree> declare_tree(rt::directory& dir, const node_parts& parts) {
  auto sandbox = sandbox_of(parts);
  if (!sandbox) return tl::unexpected(sandbox.error());
  auto leases = lease_times_of(parts.settings.lease, parts.settings.limits.kill_grace);
  if (!leases) return tl::unexpected(leases.error());
  planting p{dir, parts, std::move(*sandbox), *leases};
  p.lock();
  p.care();
  p.coordinate();
  p.deliver();
  p.work();
  p.inspect();
  return std::move(p).take();
}

} // namespace coppice::actors
