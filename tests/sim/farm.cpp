#include "tests/sim/farm.hpp"

namespace coppice::sim {

using namespace std::chrono_literals;

namespace {

/// Between looks of a BRIDGE at its sessions.
constexpr nanoseconds tick_period = 500ms;
/// How long init waits before it starts a process again that gave up.
constexpr nanoseconds restart_delay = 1s;

} // namespace

farm::farm(const farm_options& o)
    : time(o.prints)
    , net(time, o.seed + 1)
    , ledger(o.policy, watcher, o.broken)
    , options_(o)
    , dice_(o.seed)
    , parts_{time, lines_, ledger, blobs, o.lease, o.disks_forget} {
  blobs.on_removed = [this](const std::string& key, const std::string& bytes) { watcher.removed(key, bytes); };
  blobs.refuses = [this](const std::string& key) -> expected<void> {
    if (dice_.chance(refused_puts)) return fail(ec::storage_full, "there is no room for " + key);
    return {};
  };
  ledger.on_death = [this] { crash(hub()); };
  for (std::size_t i = 0; i <= options_.members; ++i) {
    const auto error = options_.rate_error * (static_cast<double>(dice_.below(2001)) / 1000 - 1);
    auto m = std::make_unique<machine>(machine_names[i], 1 + error, i == 0 ? o.hub_slots : o.member_slots);
    auto clock = machine_builders::machine_time{[this, p = m.get()] { return 1h + p->local(time.now()); },
                                                [this, p = m.get()](nanoseconds boot) {
                                                  return std::max(nanoseconds{1us}, p->global(boot - 1h) - time.now());
                                                }};
    m->builders = std::make_unique<machine_builders>(m->name, time, dice_.seed(), clock, o.scripts, watcher);
    std::filesystem::create_directory(m->state_dir);
    if (o.disks_forget) m->disk.emplace(m->state_dir);
    machines_.push_back(std::move(m));
  }
}

farm::~farm() {
  for (auto& m : machines_)
    m->builders->kill_all();
}

void farm::start(machine& m) {
  if (m.process || m.now == machine::state::lost) return;
  node::options o;
  o.name = m.name;
  o.born = {++m.born};
  o.state_dir = m.state_dir;
  o.slots = m.slots;
  o.seed = dice_.seed();
  o.boot = m.local(time.now());
  o.reaches_store = [this, &m] { return reaches_store(m); };
  o.spoils = [this] { return dice_.chance(spoilt_reads); };
  m.process = std::make_unique<node>(parts_, *m.builders, std::move(o));
  m.now = machine::state::up;
  m.doomed = false;
  time.tell("{} starts, incarnation {}", m.name, m.born);
  check_kept(m);
  time.after(dice_.between(0ns, tick_period), [this, &m, life = m.born] { tick(m, life); });
}

void farm::tick(machine& m, std::uint64_t life) {
  if (!m.process || m.born != life) return;
  if (m.runs()) {
    sync(m);
    m.process->tick();
  }
  time.after(m.global(tick_period), [this, &m, life] { tick(m, life); });
}

void farm::crash(machine& m) {
  if (!m.process || m.doomed) return;
  time.tell("{} crashes", m.name);
  m.doomed = true;
}

void farm::cut_power(machine& m, double survives, std::optional<std::uint64_t> at_sync) {
  if (!m.disk || !m.process || m.doomed) return;
  if (at_sync)
    return m.disk->fail_at_sync(*at_sync, [this, &m, survives] {
      time.tell("{} loses its power at a sync", m.name);
      m.disk->cut_power(dice_, survives);
      crash(m);
    });
  time.tell("{} loses its power", m.name);
  for (auto& entry : test::need(m.process->kept().list()).entries)
    m.kept.insert(entry.key);
  m.disk->cut_power(dice_, survives);
  crash(m);
}

// INV-12: what was put into the journal is there after all.
void farm::check_kept(machine& m) {
  for (auto& entry : test::need(m.process->kept().list()).entries)
    m.kept.erase(entry.key);
  for (auto& key : m.kept)
    watcher.broken("INV-12", m.name + " forgot the outputs that it keeps of " + key.to_string());
  m.kept.clear();
}

// Not within a step of its own: an actor's world cannot end while it runs.
void farm::bury() {
  for (auto& m : machines_) {
    if (m->process && !m->doomed && m->process->ended()) {
      time.tell("{} gives up: {}", m->name, "its tree ended");
      m->doomed = true;
      time.after(restart_delay, [this, p = m.get()] { start(*p); });
    }
    if (!m->doomed) continue;
    m->doomed = false;
    m->builders->stop_watchdogs(false);
    m->builders->sleep(false);
    m->builders->kill_all();
    m->process.reset();
    if (m->disk) m->disk->never_fail();
    if (m->disk) m->disk->power_back();
    if (m->now != machine::state::lost) m->now = machine::state::down;
    if (m == machines_.front()) ledger.lose_power();
  }
}

void farm::pause(machine& m, bool dogs) {
  if (m.now != machine::state::up) return;
  time.tell("{} is stopped{}", m.name, dogs ? ", its watchdogs too" : "");
  m.now = machine::state::paused;
  if (dogs) m.builders->stop_watchdogs(true);
}

void farm::sleep(machine& m) {
  if (m.now != machine::state::up) return;
  time.tell("{} sleeps", m.name);
  m.now = machine::state::asleep;
  m.builders->sleep(true);
}

void farm::resume(machine& m) {
  if (m.now != machine::state::paused && m.now != machine::state::asleep) return;
  time.tell("{} goes on", m.name);
  m.now = machine::state::up;
  m.builders->stop_watchdogs(false);
  m.builders->sleep(false);
}

void farm::lose(machine& m) {
  time.tell("{} is lost", m.name);
  crash(m);
  m.now = machine::state::lost;
}

expected<void> farm::reaches_store(const machine& m) {
  auto& h = hub();
  if (!net.carries(m.name, h.name) || !net.carries(h.name, m.name) || !h.runs())
    return fail(ec::unavailable, "the hub's store does not answer");
  if (dice_.chance(net.now.loss)) return fail(ec::unavailable, "the connection to the hub's store broke");
  return {};
}

void farm::sync(machine& m) {
  m.process->pass(m.local(time.now()));
}

bool farm::run_until(const std::function<bool()>& done, nanoseconds end) {
  while (!done())
    if (!step(end)) return done();
  return true;
}

bool farm::step(nanoseconds end) {
  bury();
  machine* ready[8];
  std::size_t n = 0;
  for (auto& m : machines_)
    if (m->runs() && m->process->can_run()) ready[n++] = m.get();
  if (n > 0) {
    auto& m = *ready[dice_.below(n)];
    m.process->world().run_one();
    time.note(static_cast<std::uint64_t>(m.name[0]));
    if (dice_.chance(0.1)) m.process->pump();
    return true;
  }
  for (auto& m : machines_)
    if (m->runs() && m->process->pump()) return true;
  auto next = time.next();
  for (auto& m : machines_) {
    if (!m->runs()) continue;
    if (const auto due = m->process->next_due(); due && (!next || m->global(*due) < *next)) next = m->global(*due);
  }
  if (!next || *next > end) {
    time.pass(end);
    return false;
  }
  const auto t = std::max(*next, time.now());
  time.pass(t);
  for (auto& m : machines_)
    if (m->runs()) sync(*m);
  return true;
}

} // namespace coppice::sim
