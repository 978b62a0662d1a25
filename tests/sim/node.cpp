#include "tests/sim/node.hpp"

#include "tests/sim/names.hpp"

namespace coppice::sim {

namespace fs = std::filesystem;

namespace {
/// Of all farms; drawn before any run, or the first would draw other ids than its repetition.
const auto farms_key = std::make_shared<nix::secret_key>(*nix::secret_key::generate("test-1"));
} // namespace

bool node::slow_pool::post(std::function<void()> job) {
  if (!*home_.alive_) return false;
  home_.world_->after(home_.dice_.between(nanoseconds{0}, longest_), [alive = home_.alive_, job = std::move(job)] {
    if (*alive) job();
  });
  return true;
}

node::node(farm_parts& farm, machine_builders& builders, options o)
    : farm_(farm)
    , options_(std::move(o))
    , dice_(options_.seed)
    , processes_(builders.port())
    , pool_(*this, farm.job_max)
    , ledger_thread_(*this, farm.job_max / 4) {
  for (auto dir : {"running", "uploads"})
    fs::create_directories(options_.state_dir / dir);
  local_ = test::need(store::local_store::open({options_.state_dir / "local", "/nix/store", {}, {}, farm_.syncs}));
  kept_ = test::need(store::kept_journal::open(options_.state_dir / "kept"));
  if (!is_hub()) remote_ = std::make_unique<remote_blobs>(farm_.blobs, options_.reaches_store, options_.spoils);
  world_ = std::make_unique<test::world>(dice_.seed(), options_.boot);
  mesh_ = std::make_shared<rt::mesh>(world_->directory, node_id{options_.name});
  tree_.emplace(test::need(actors::declare_tree(world_->directory, parts())));
  ended_ = world_->run(tree_->root).ended;
  bridge_.emplace(
      farm_.lines, world_->system, mesh_,
      bridge::options{{options_.name}, options_.born, {is_hub() ? std::string{} : hub_name}, options_.on_words});
}

// What the actors still do while they are ended reaches nothing: no job runs, no word leaves, no builder hears.
node::~node() {
  *alive_ = false;
  world_->kills = nullptr;
  bridge_.reset();
  tree_.reset();
  mesh_.reset();
  world_.reset();
}

std::optional<nanoseconds> node::next_due() {
  const auto due = world_->next_due();
  if (!due) return {};
  return due->time_since_epoch() - std::chrono::hours{1};
}

ledger_actor node::ledger() const {
  return world_->directory.find_as<ledger_actor>("/" + options_.name + "/lock/ledger");
}

actors::node_parts node::parts() {
  actors::node_parts p;
  p.settings.http = "127.0.0.1:0";
  p.settings.limits.reserve = {0, 0, 0, 0}; // what this machine has left must not matter
  p.settings.limits.pressure = {0, 0, 0, 0};
  p.settings.limits.processes_max = 0;
  p.settings.limits.disk_bytes_max = 0;
  p.settings.limits.files_max = 0;
  p.settings.limits.kill_grace = std::chrono::milliseconds{500};
  p.settings.lease = farm_.lease;
  p.settings.failures.retry_max = farm_.retry_max;
  p.state_dir = options_.state_dir;
  p.me = {{options_.name}, {}, options_.born};
  for (std::size_t i = 0; i < options_.name.size(); ++i)
    p.me.session.bytes[i] = static_cast<std::uint8_t>(options_.name[i]);
  p.me.session.bytes[15] = static_cast<std::uint8_t>(options_.born.value);
  p.version = "test";
  p.open_ledger = [&disk = farm_.ledger] { return disk.open(); };
  p.blobs = is_hub() ? &farm_.blobs : remote_.get();
  p.local = local_.get();
  p.kept = &*kept_;
  p.pool = p.watch_pool = &pool_;
  p.ledger_thread = &ledger_thread_;
  p.processes = processes_.get();
  p.clock = &world_->clock;
  p.cgroups = &cgroups_;
  p.signing_key = farms_key;
  p.systems = {"x86_64-linux"};
  p.slots = options_.slots;
  p.http_port = &http_port_;
  p.mesh = mesh_;
  if (!is_hub()) p.hub = {hub_name};
  p.make_worker = [](std::string label, rt::child_options o, actors::worker_state::config c, const auto& peers, job j,
                     nonce who, auto entry) {
    c.exec_program = "/proc/self/exe"; // opened, never run
    return actors::worker_pool_state::make_worker(std::move(label), o, c, peers, std::move(j), who, std::move(entry));
  };
  return p;
}

} // namespace coppice::sim
