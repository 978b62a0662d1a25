#include "apps/coppiced/node.hpp"

#include "actors/build/worker_files.hpp"
#include "actors/deliver/cache_server.hpp"
#include "actors/tree.hpp"
#include "apps/coppiced/ledger.hpp"
#include "apps/coppiced/machine.hpp"
#include "apps/coppiced/state.hpp"
#include "runtime/bridge.hpp"
#include "runtime/log.hpp"
#include "runtime/pool.hpp"
#include "runtime/process_loop.hpp"
#include "runtime/random.hpp"
#include "runtime/signals.hpp"
#include "store/directory_blob_store.hpp"
#include "store/files.hpp"
#include "store/http_blob_store.hpp"
#include "store/s3_blob_store.hpp"
#include "store/upstream/upstream.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

namespace coppice::app {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

/// Jobs of the pool that may wait; each is a piece of one build.
constexpr std::size_t pool_queue_max = 65'536;
/// One may wait for a disk while the other looks.
constexpr unsigned watch_threads = 2;
constexpr std::chrono::milliseconds stray_logs_retry_first = 500ms, stray_logs_retry_max = 60s;
/// Downloads from upstream caches at once: they wait for others most of the time.
constexpr unsigned upstream_threads = 8;
/// Inputs fetched from other machines at once: as FETCHER's lanes.
constexpr unsigned fetch_threads = 10;
/// An upload in parts that takes longer is one that nobody will end.
constexpr std::chrono::hours stale_upload_age{7 * 24};
/// Between two looks whether the ledger is free: a small part of its lease.
constexpr auto stand_by_pause = 500ms;
constexpr auto start_timeout = 30s;
constexpr auto stop_timeout = 20s;
/// For builds to be given back: the ledger may be on a machine that is away.
constexpr auto give_back_timeout = 5s;

struct scheduler_config : caf::actor_system_config {
  explicit scheduler_config(std::size_t threads) {
    set("scheduler.policy", caf::atom("sharing")); // idle actors cost nothing, and wake faster than by stealing
    set("scheduler.max-threads", threads);
  }
};

std::uint32_t cpus() { return std::max(1u, std::thread::hardware_concurrency()); }

/// As root, builders run as a user of their own, if that user can reach their inputs at all.
std::optional<rt::process_user> builder_user(const fs::path& state_dir) {
  constexpr rt::process_user nixbld{30001, 30000}; // the customary ids of Nix's first build user and group
  if (::geteuid() != 0) return {};
  for (auto dir = state_dir; dir.has_relative_path(); dir = dir.parent_path()) {
    struct ::stat s {};
    if (::stat(dir.c_str(), &s) != 0 || (s.st_mode & S_IXOTH) == 0) {
      rt::log::warn("NODE", "builders run as root (in their own user namespace): other users cannot enter dir={}", dir.string());
      return {};
    }
  }
  return nixbld;
}

/// Logs of attempts that an earlier process could not end.
std::vector<fs::path> stray_logs(const fs::path& dir) {
  std::vector<fs::path> found;
  for (auto& entry : fs::directory_iterator(dir)) found.push_back(entry.path());
  return found;
}

/// They go where all others are, and are no longer among `logs`.
expected<void> keep_logs(std::vector<fs::path>& logs, store::blob_store& blobs) {
  for (; !logs.empty(); logs.pop_back())
    if (auto done = actors::store_log(blobs, logs.back(), {"attempts/" + logs.back().filename().string()}); !done) return done;
  return {};
}

/// A URL as it is seen from here: one that names no machine is at the machine of this endpoint. (A hub that may run
/// on several has an http_url.)
std::string reachable(std::string url, const std::string& endpoint) {
  auto host = endpoint.substr(std::string_view{"tcp://"}.size());
  host.resize(std::min(host.rfind(':'), host.size()));
  for (auto any : {"//0.0.0.0:", "//[::]:"})
    if (auto at = url.find(any); at != std::string::npos) url.replace(at, std::strlen(any), "//" + host + ":");
  return url;
}

/// One path component that identifies the state directory among others on this machine.
std::string group_name(const fs::path& state_dir) {
  return nix::hash_of(nix::hash_algo::sha256, state_dir.string()).base32().substr(0, 12);
}

} // namespace

struct node::impl {
  explicit impl(actors::node_settings s) : settings(std::move(s)) {}

  /// Takes the state directory, and the ledger if it may be open elsewhere: then this waits, with `shutdown` once the
  /// process shall end.
  expected<void> open_state();
  expected<void> open_stores();
  void keep_stray_logs(std::stop_token stop);
  expected<void> open_upstream();
  expected<void> start_actors();
  template <class T, class Handle, class... Ts>
  expected<T> ask_within(std::chrono::milliseconds timeout, const Handle& to, Ts... xs);
  template <class T, class Handle, class... Ts>
  expected<T> ask(const Handle& to, Ts... xs) {
    return ask_within<T>(start_timeout, to, std::move(xs)...);
  }
  /// Gets what an actor tells once the one at `path`, which it depends on, serves; gives up when that one has ended.
  template <class T, class Handle>
  expected<T> ask_started(const std::string& path, const Handle& to);
  /// Empty for an actor that never ended.
  std::string last_exit(const std::string& path) const;
  /// Why an actor does not serve: the reason of its last end, else what its reference says.
  tl::unexpected<error> not_started(const std::string& what, const std::string& path, const error& e) const;
  void give_back_builds();
  void stop();

  rt::signals signals;
  actors::node_settings settings;
  rt::real_clock clock;
  std::optional<state_dir> state;
  open_ledger ledger;
  std::atomic<bool> ledger_was_open{false};
  /// For a hub that may run on several machines. One that lost its ledger must not be taken for the hub while it tries to
  /// get it back, so it ends; as it builds nothing, that costs nothing.
  std::unique_ptr<store::ledger_backend> open_ledger_once();
  std::unique_ptr<shared_identity> identity; ///< null: the node is this one, for ever
  bool member() const { return !settings.hub.empty(); }
  expected<std::unique_ptr<store::blob_store>> open_blobs();
  expected<std::unique_ptr<store::blob_store>> open_bucket();
  /// Takes away what uploads to the bucket left behind that nobody will end.
  void sweep_bucket();
  std::vector<rt::node_address> dials() const;
  /// Where the hub's store is, and what lets this node write there; asked for anew if it is not known or was `refused`.
  expected<upload_ticket> hub_ticket(bool refused);

  std::mutex ticket_mutex;
  std::optional<upload_ticket> ticket; ///< guarded by ticket_mutex
  std::atomic<bool> ticket_stale{false}; ///< the hub was lost: it may come back elsewhere
  std::atomic<bool> blobs_stop{false};
  std::unique_ptr<store::blob_store> blobs;
  store::held_fetch held{blobs_stop};
  store::s3_blob_store* bucket = nullptr; ///< the blobs, if they are in one
  std::unique_ptr<store::local_store> local;
  std::optional<store::kept_journal> kept;
  std::unique_ptr<rt::cgroup_root> cgroups;
  actors::bound_port http_port{};
  std::shared_ptr<rt::bridge_memory> listening = std::make_shared<rt::bridge_memory>();
  std::unique_ptr<rt::process_loop> processes;
  std::unique_ptr<rt::pool> pool, watch_pool, fetch_pool, ledger_thread;
  std::unique_ptr<store::upstream> upstream; ///< null if no caches are named
  std::unique_ptr<rt::pool> upstream_pool;
  std::unique_ptr<scheduler_config> scheduler;
  std::unique_ptr<caf::actor_system> system;
  std::unique_ptr<rt::directory> directory;
  std::shared_ptr<rt::mesh> mesh;
  std::optional<actors::node_tree> tree;
  std::shared_ptr<rt::registry> exposed = std::make_shared<rt::registry>();
  std::optional<bridge_actor> bridge;
  caf::strong_actor_ptr root;
  std::atomic<bool> ended{false};
  std::vector<fs::path> strays; ///< strays_keeper's while it runs
  std::jthread strays_keeper;
};

node::node(actors::node_settings settings) : impl_(std::make_unique<impl>(std::move(settings))) {}

node::~node() { impl_->stop(); }

expected<void> node::impl::open_state() {
  const auto& machine = settings.takeover.machine;
  auto taken = state_dir::take(settings.state_dir, settings.node, settings.secret_key, machine);
  if (!taken) return tl::unexpected(taken.error());
  state.emplace(std::move(*taken));
  if (member()) return {};
  auto& f = settings.failures;
  const store::ledger_policy policy{f.poison_max, f.attempts_max, f.threshold, f.decay};
  const node_id opener{machine.empty() ? state->node_name() : machine};
  for (std::string why;;) {
    auto opened = ledger_opener(settings.ledger, opener, state->path() / "ledger.sqlite", policy);
    if (opened) {
      ledger = std::move(*opened);
      break;
    }
    if (machine.empty() || opened.error().code != ec::unavailable) return tl::unexpected(opened.error());
    if (auto done = state->stand_by(true); !done) return done;
    if (why != opened.error().what) rt::log::info("NODE", "stands by: {}", why = opened.error().what);
    if (auto got = signals.wait_for(stand_by_pause); got && (*got == SIGTERM || *got == SIGINT))
      return fail(ec::shutdown, "stopped while another machine had the ledger open");
  }
  if (machine.empty()) return {};
  auto shared = open_identity(settings.ledger);
  if (!shared) return tl::unexpected(shared.error());
  identity = std::move(*shared);
  if (auto done = identity->take_up(*state); !done) return done;
  rt::log::info("NODE", "takes the hub over name={} machine={} incarnation={}", state->node_name(), machine,
                state->born().value);
  return state->stand_by(false);
}

std::unique_ptr<store::ledger_backend> node::impl::open_ledger_once() {
  if (!ledger_was_open.exchange(true)) return ledger();
  rt::log::error("NODE", "the ledger was lost: another machine may be the hub by now, and this one stands by when it is started again");
  ended = true;
  rt::signals::wake();
  throw store::ledger_io_error(ec::unavailable, "the ledger was lost");
}

expected<void> node::impl::open_stores() {
  auto& dir = state->path();
  auto opened = open_blobs();
  if (!opened) return tl::unexpected(opened.error());
  blobs = std::move(*opened);
  store::local_store_options o;
  o.root = dir / "local";
  if (!settings.store_dir.empty()) o.real_dir = settings.store_dir;
  auto own = store::local_store::open(o);
  if (!own) return tl::unexpected(own.error());
  local = std::move(*own);
  for (auto& problem : local->problems()) rt::log::warn("NODE", "local store: {}", problem);
  auto journal = store::kept_journal::open(dir / "kept");
  if (!journal) return tl::unexpected(journal.error());
  kept.emplace(std::move(*journal));
  strays = stray_logs(dir / "running");
  if (!member() && !bucket) // others' stores may be away, which start_actors() does not wait for
    if (auto done = keep_logs(strays, *blobs); !done) rt::log::warn("NODE", "{}", done.error().what);
  // it is written without fsync: after a power cut its files may be empty
  if (auto done = store::remove_tree(dir / "etc"); !done) return done;
  cgroups = std::make_unique<rt::cgroup_root>(group_name(dir));
  auto swept = cgroups->sweep(); // builders of an earlier process (INV-11)
  if (!settings.limits.cgroups) cgroups = std::make_unique<rt::cgroup_root>(group_name(dir), std::vector<std::string>{});
  return swept;
}

void node::impl::keep_stray_logs(std::stop_token stop) {
  std::mutex unused;
  std::unique_lock lock{unused};
  std::condition_variable_any never;
  for (auto delay = stray_logs_retry_first; !stop.stop_requested(); delay = std::min(delay * 2, stray_logs_retry_max)) {
    auto done = keep_logs(strays, *blobs);
    if (done) return;
    rt::log::warn("NODE", "logs of earlier builds not stored, tried again count={} error={}", strays.size(), done.error().what);
    never.wait_for(lock, stop, delay, [] { return false; });
  }
}

expected<std::unique_ptr<store::blob_store>> node::impl::open_bucket() {
  auto& s = settings.s3;
  store::s3_blob_options o;
  o.place = {s.endpoint, s.bucket, s.region, s.virtual_host};
  o.credentials = {s.credentials_file, s.profile};
  o.environment = [](const char* name) -> const char* { return std::getenv(name); };
  o.scratch_dir = state->path() / "spool";
  o.clock = &clock;
  o.stop = &blobs_stop;
  auto opened = store::s3_blob_store::open_bucket(std::move(o));
  if (!opened) return fail(opened.error().code, "[s3]: " + opened.error().what);
  if (!member()) {
    auto claimed = (*opened)->claim("/nix/store");
    if (!claimed && claimed.error().code != ec::unavailable)
      return fail(claimed.error().code, "[s3]: " + claimed.error().what);
    if (!claimed) rt::log::warn("NODE", "the bucket is not there yet error={}", claimed.error().what);
  }
  bucket = opened->get();
  return std::unique_ptr<store::blob_store>{std::move(*opened)};
}

void node::impl::sweep_bucket() {
  auto swept = bucket->sweep(stale_upload_age);
  if (!swept) rt::log::warn("NODE", "what uploads left behind is not swept error={}", swept.error().what);
}

expected<std::unique_ptr<store::blob_store>> node::impl::open_blobs() {
  if (!settings.s3.bucket.empty()) return open_bucket();
  if (!member()) {
    auto opened = store::directory_blob_store::open_dir(state->path() / "cache");
    if (!opened) return tl::unexpected(opened.error());
    return std::unique_ptr<store::blob_store>{std::move(*opened)};
  }
  store::http_blob_options o;
  o.url = [this]() -> expected<std::string> {
    auto t = hub_ticket(false);
    if (!t) return tl::unexpected(t.error());
    return reachable(t->url, settings.hub.front());
  };
  o.ticket = [this](bool refused) -> expected<std::string> {
    auto t = hub_ticket(refused);
    if (!t) return tl::unexpected(t.error());
    return t->ticket;
  };
  o.scratch_dir = state->path() / "spool";
  o.stop = &blobs_stop;
  return store::open_http_blob_store(std::move(o));
}

expected<upload_ticket> node::impl::hub_ticket(bool refused) {
  std::lock_guard lock{ticket_mutex};
  if (ticket_stale.exchange(false) || refused) ticket.reset();
  if (ticket) return *ticket;
  if (!mesh) return fail(ec::unavailable, "the node has not started yet");
  auto hub = node_id{settings.hub_node};
  auto fresh = ask<upload_ticket>(mesh->remote<tickets_actor>(hub, "/" + hub.value + "/deliver/cache-server"),
                                  atom::open_v, get_ticket{});
  if (!fresh) return tl::unexpected(fresh.error());
  ticket = *fresh;
  return *fresh;
}

std::vector<rt::node_address> node::impl::dials() const {
  if (!member()) return {};
  auto& own = state->node_key();
  return {{{settings.hub_node}, settings.hub, settings.hub_key, {own.public_key, own.secret_key}}};
}

expected<void> node::impl::open_upstream() {
  auto& s = settings.upstream;
  store::upstream_options o;
  for (auto& text : s.substituters) {
    auto url = store::parse_cache_url(text);
    if (!url) return fail(ec::invalid, "upstream.substituters: " + url.error().what);
    o.urls.push_back(std::move(*url));
  }
  for (auto& text : s.trusted_public_keys) {
    auto key = nix::public_key::parse(text);
    if (!key) return fail(ec::invalid, "upstream.trusted_public_keys: " + key.error().what);
    o.trust.keys.push_back(std::move(*key));
  }
  if (s.timeout < 1ms) return fail(ec::invalid, "upstream.timeout: caches need some time to answer");
  if (o.urls.empty()) return {};
  if (o.trust.keys.empty())
    rt::log::warn("NODE", "no trusted_public_keys: only what is content-addressed is taken from upstream caches");
  o.trust.nar_bytes_max = settings.limits.nar_bytes_max > 0 ? settings.limits.nar_bytes_max : o.trust.nar_bytes_max;
  o.silence_max = s.timeout;
  upstream = std::make_unique<store::upstream>(std::move(o), clock);
  upstream_pool = std::make_unique<rt::pool>(upstream_threads, pool_queue_max);
  return {};
}

expected<void> node::impl::start_actors() {
  auto threads = settings.threads > 0 ? settings.threads : cpus();
  processes = std::make_unique<rt::process_loop>();
  pool = std::make_unique<rt::pool>(threads, pool_queue_max);
  watch_pool = std::make_unique<rt::pool>(watch_threads, pool_queue_max);
  fetch_pool = std::make_unique<rt::pool>(fetch_threads, pool_queue_max);
  ledger_thread = std::make_unique<rt::pool>(1, pool_queue_max);
  scheduler = std::make_unique<scheduler_config>(cpus());
  system = std::make_unique<caf::actor_system>(*scheduler);
  directory = std::make_unique<rt::directory>(*system);
  mesh = std::make_shared<rt::mesh>(*directory, node_id{state->node_name()});

  actors::node_parts parts;
  parts.settings = settings;
  parts.state_dir = state->path();
  parts.me = {{state->node_name()}, rt::random_id<session_id>(), state->born()};
  parts.version = COPPICE_VERSION;
  parts.open_ledger = ledger;
  if (identity) {
    parts.open_ledger = [this] { return open_ledger_once(); };
    parts.authorized = state->authorized_file();
    parts.authorize = [this](const rt::authorized_keys& keys) { return identity->authorize(keys); };
  }
  parts.blobs = blobs.get();
  parts.blob_urls = bucket;
  parts.local = local.get();
  parts.kept = &*kept;
  parts.upstream = upstream.get();
  parts.upstream_pool = upstream_pool.get();
  parts.processes = processes.get();
  parts.pool = pool.get();
  parts.watch_pool = watch_pool.get();
  parts.fetch_pool = fetch_pool.get();
  parts.held = &held;
  parts.ledger_thread = ledger_thread.get();
  parts.clock = &clock;
  parts.cgroups = cgroups.get();
  parts.signing_key = state->signing_key();
  parts.run_as = builder_user(state->path());
  if (!identity) { // a hub that moves builds nothing: what runs here must not depend on where it is
    parts.systems = settings.systems.empty() ? machine_systems() : settings.systems;
    parts.systems.emplace_back("builtin"); // builtin:fetchurl runs anywhere
  }
  parts.environment = environment_variables();
  parts.ca_bundle = find_ca_bundle();
  parts.slots = settings.max_jobs > 0 ? settings.max_jobs : cpus();
  mesh->observe([this](const node_id&, bool up) {
    if (!up) ticket_stale = true;
  });
  parts.http_port = &http_port;
  parts.mesh = mesh;
  parts.hub = {settings.hub_node};
  auto declared = actors::declare_tree(*directory, parts);
  if (!declared) return tl::unexpected(declared.error());
  tree.emplace(std::move(*declared));

  if (tree->gateway)
    exposed->expose("gateway", *tree->gateway,
                    {{"missing", role::submitter}, {"submit", role::submitter}, {"cancel", role::submitter}});
  exposed->expose("observatory", tree->observatory, {{"kill", role::admin}, {"forget", role::admin}});
  if (tree->inspector)
    exposed->expose("inspector", *tree->inspector,
                    {{"drain", role::admin}, {"retry", role::admin}, {"drop", role::admin}, {"gone", role::admin}});
  rt::bridge_options o;
  o.listen = settings.listen;
  o.keys = state->node_key();
  o.authorized = state->authorized_file();
  o.sessions.peers.node = {state->node_name()};
  o.sessions.peers.text = parts.version;
  o.sessions.peers.born = state->born();
  o.mesh = mesh;
  o.dials = dials();
  o.sessions.relay_to = parts.hub;
  if (member()) o.sessions.relayed = {"gateway", "inspector"};
  bridge = tree->root.child<rt::bridge>("bridge", o, std::shared_ptr<const rt::registry>(exposed), listening);

  root = tree->root.run([this](const caf::error& why) {
    if (!is(why, ec::shutdown)) rt::log::error("ROOT", "the tree ended reason={}", rt::describe_reason(why));
    ended = true;
    rt::signals::wake();
  });
  return {};
}

template <class T, class Handle, class... Ts>
expected<T> node::impl::ask_within(std::chrono::milliseconds timeout, const Handle& to, Ts... xs) {
  caf::scoped_actor self{*system};
  expected<T> result = fail(ec::deadline, "no answer in time");
  self->request(to, timeout, std::move(xs)...)
    .receive([&](T& x) { result = std::move(x); }, [&](caf::error& e) { result = tl::unexpected(from_caf(e)); });
  return result;
}

template <class T, class Handle>
expected<T> node::impl::ask_started(const std::string& path, const Handle& to) {
  const auto until = clock.now() + start_timeout;
  for (;;) { // a reference holds messages for less long than a busy disk may take to open a ledger
    auto result = ask<T>(to, atom::get_v);
    if (result || result.error().code != ec::unavailable) return result;
    if (ended || clock.now() > until || !last_exit(path).empty()) return result;
  }
}

std::string node::impl::last_exit(const std::string& path) const {
  for (auto& actor : directory->describe())
    if (actor.path == path) return actor.last_exit;
  return {};
}

tl::unexpected<error> node::impl::not_started(const std::string& what, const std::string& path, const error& e) const {
  const auto why = last_exit(path);
  return fail(e.code, "cannot " + what + ": " + (why.empty() ? e.what : why));
}

expected<node_ready> node::start() {
  auto& n = *impl_;
  auto level = rt::log::parse_level(n.settings.log_level);
  if (!level) return fail(ec::invalid, "log_level '" + n.settings.log_level + "' is none of debug, info, warn, error, off");
  rt::log::options log;
  log.least = *level;
  rt::log::open(log);
  if (auto done = n.open_state(); !done) return tl::unexpected(done.error());
  if (auto done = n.open_stores(); !done) return tl::unexpected(done.error());
  if (auto done = n.open_upstream(); !done) return tl::unexpected(done.error());
  if (auto done = n.start_actors(); !done) return tl::unexpected(done.error());
  auto root = "/" + n.state->node_name();
  if (!n.member()) { // a member serves before its hub does, and waits for it
    const auto ledger = root + "/lock/ledger";
    auto open = n.ask_started<session_info>(ledger, n.directory->find_as<session_actor>(root + "/lock/session"));
    if (!open) return n.not_started("open the ledger", ledger, open.error());
  }
  const auto cache = root + "/deliver/cache-server";
  auto http = n.ask_started<std::string>(cache, n.tree->cache);
  if (!http) return n.not_started("serve the binary cache on " + n.settings.http, cache, http.error());
  const auto bridge = root + "/bridge";
  auto listen = n.ask_started<std::string>(bridge, *n.bridge);
  if (!listen) return n.not_started("listen on " + n.settings.listen, bridge, listen.error());
  if (auto done = n.state->write_endpoint(*listen, *http, n.settings.takeover.endpoints); !done) return tl::unexpected(done.error());
  if (!n.strays.empty())
    n.strays_keeper = std::jthread{[me = impl_.get()](std::stop_token stop) { me->keep_stray_logs(std::move(stop)); }};
  if (n.bucket) // ignored if it has no room: they are swept at the next start
    n.pool->post([me = impl_.get()] { me->sweep_bucket(); });
  rt::log::info("NODE", "node serves name={} listen={} http={} state_dir={}", n.state->node_name(), *listen, *http,
                n.state->path().string());
  return node_ready{n.state->node_name(), *listen, *http, n.state->signing_key()->public_key().to_string(),
                    n.state->path().string(), ::getpid()};
}

bool node::serve() {
  for (;;) {
    auto got = impl_->signals.wait();
    if (impl_->ended) return false;
    if (got == SIGTERM || got == SIGINT) {
      rt::log::info("NODE", "stopping signal={}", got);
      impl_->give_back_builds();
      return true;
    }
  }
}

// An ordered stop is no failure of what is being built: it must not count as one (INV-17).
void node::impl::give_back_builds() {
  auto workers = directory->find_as<worker_pool_actor>("/" + state->node_name() + "/work/worker-pool");
  if (!workers) return;
  if (auto done = ask_within<ledger::done>(give_back_timeout, workers, atom::stop_v); !done)
    rt::log::warn("NODE", "builds not given back error={}", to_string(done.error()));
}

// Reverse order of start: what stands on something goes first.
void node::impl::stop() {
  if (state) state->remove_endpoint();
  blobs_stop = true;
  strays_keeper = {};
  if (root && !rt::shut_down_and_wait(*system, root, stop_timeout)) {
    rt::log::error("NODE", "actors did not stop in {} s: the process ends without them", stop_timeout.count());
    rt::log::close();
    std::_Exit(EXIT_FAILURE); // what they stand on must not go before them
  }
  if (upstream) upstream->stop();
  if (upstream_pool) upstream_pool->close();
  upstream.reset();
  if (fetch_pool) fetch_pool->close();
  if (watch_pool) watch_pool->close();
  if (pool) pool->close();
  if (ledger_thread) ledger_thread->close();
  root = nullptr;
  bridge.reset();
  tree.reset();
  mesh.reset();
  processes.reset();
  directory.reset();
  system.reset();
  rt::log::close();
}

} // namespace coppice::app
