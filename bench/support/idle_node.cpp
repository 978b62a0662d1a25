#include "bench/support/idle_node.hpp"

#include "bench/support/idle_worker.hpp"
#include "runtime/random.hpp"

#include <caf/scoped_actor.hpp>

namespace coppice::bench {
namespace {

using namespace std::chrono_literals;

template <class T>
T need(expected<T> x) {
  if (!x) throw std::runtime_error(to_string(x.error()));
  return std::move(*x);
}

} // namespace

const blob_id idle_node::output_blob = [] {
  blob_id b;
  b.bytes[0] = 1;
  return b;
}();

idle_node::idle_node(const options& o)
    : dir_(o.dir)
    , local_(need(store::local_store::open({dir_ / "local", "/nix/store", {}, {}, true})))
    , kept_(need(store::kept_journal::open(dir_ / "kept")))
    , pool_(cpus(), 65'536)
    , ledger_thread_(1, 16) {
  actors::node_parts parts;
  parts.settings.http = "127.0.0.1:0";
  parts.settings.limits.reserve = {0, 0, 0, 0}; // what builds nothing takes nothing, however little is left
  parts.state_dir = dir_;
  parts.me = {{o.name}, rt::random_id<session_id>(), {1}};
  parts.version = "bench";
  parts.open_ledger = o.open_ledger;
  if (!parts.open_ledger)
    parts.open_ledger = [file = dir_ / "ledger.sqlite"] { return store::open_sqlite_ledger(file); };
  parts.blobs = &blobs_;
  parts.local = local_.get();
  parts.kept = &kept_;
  parts.processes = &processes_;
  parts.pool = &pool_;
  parts.ledger_thread = &ledger_thread_;
  parts.clock = &clock_;
  parts.cgroups = &cgroups_;
  parts.signing_key = std::make_shared<nix::secret_key>(*nix::secret_key::generate("bench-1"));
  if (o.slots > 0) parts.systems = {"x86_64-linux"};
  parts.slots = std::max(1u, o.slots);
  parts.http_port = &http_port_;
  parts.make_worker = idle_workers(output_blob);
  parts.keeps_events = o.events;
  if (o.link) {
    parts.mesh = mesh_ = std::make_shared<rt::mesh>(directory_, parts.me.node);
    if (o.link->hub) parts.hub = o.link->hub->node;
  }
  tree_.emplace(need(actors::declare_tree(directory_, parts)));
  if (o.link) {
    rt::bridge_options b;
    b.keys = {o.name, role::node, o.link->own.public_key, o.link->own.secret_key, ""};
    b.authorized = dir_ / "authorized.toml";
    if (auto written = rt::write_authorized(b.authorized, o.link->allowed); !written)
      throw std::runtime_error(to_string(written.error()));
    b.sessions.peers.node = parts.me.node;
    b.sessions.peers.born = parts.me.incarnation;
    b.mesh = mesh_;
    if (o.link->hub) b.dials = {*o.link->hub};
    bridge_ = tree_->root.child<rt::bridge>("bridge", b, std::make_shared<const rt::registry>(),
                                            std::make_shared<rt::bridge_memory>());
  }
  root_ = tree_->root.run();
}

idle_node::~idle_node() {
  rt::shut_down_and_wait(system_, root_, 20s);
  pool_.close();
  ledger_thread_.close();
  root_ = nullptr;
  bridge_.reset();
  tree_.reset();
  mesh_.reset();
}

std::string idle_node::endpoint() {
  caf::scoped_actor me{system_};
  std::string where;
  me->request(bridge_.value(), 30s, atom::get_v).receive([&](std::string& e) { where = e; }, [](caf::error&) {});
  if (where.empty()) throw std::runtime_error("a node's bridge does not bind");
  return where;
}

} // namespace coppice::bench
