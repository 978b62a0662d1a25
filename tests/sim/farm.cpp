#include "tests/sim/farm.hpp"

#include <time.h>

namespace coppice::sim {

using namespace std::chrono_literals;

namespace {

/// Between looks of a BRIDGE at its sessions.
constexpr nanoseconds tick_period = 500ms;
/// How long init waits before it starts a process again that gave up.
constexpr nanoseconds restart_delay = 1s;

nanoseconds thread_cpu() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds{t.tv_sec} + nanoseconds{t.tv_nsec};
}

} // namespace

template <class F>
auto farm::on(machine& m, F f) {
  if (!options_.times_hub || m.number != 0) return f(*m.process);
  struct stopwatch {
    nanoseconds& sum;
    const nanoseconds began = thread_cpu();
    ~stopwatch() { sum += thread_cpu() - began; }
  } watch{hub_cpu_};
  return f(*m.process);
}

farm::farm(const farm_options& o)
    : time(o.prints)
    , net(time, o.seed + 1)
    , ledger(o.policy, watcher, o.broken)
    , options_(o)
    , dice_(o.seed)
    , lines_(net, o.members + 1)
    , parts_{time, lines_, ledger, blobs, o.lease, o.disks_forget} {
  blobs.on_removed = [this](const std::string& key, const std::string& bytes) { watcher.removed(key, bytes); };
  blobs.refuses = [this](const std::string& key) -> expected<void> {
    if (dice_.chance(refused_puts)) return fail(ec::storage_full, "there is no room for " + key);
    return {};
  };
  ledger.on_death = [this] { crash(hub()); };
  for (std::size_t i = 0; i <= options_.members; ++i) {
    const auto error = options_.rate_error * (static_cast<double>(dice_.below(2001)) / 1000 - 1);
    auto m = std::make_unique<machine>(i, 1 + error, i == 0 ? o.hub_slots : o.member_slots);
    auto clock = machine_builders::machine_time{
        [this, p = m.get()] { return 1h + p->local(time.now()); },
        [this, p = m.get()](nanoseconds boot) { return std::max(nanoseconds{1us}, p->global(boot - 1h) - time.now()); },
        [this, p = m.get()] { wake(*p); }};
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
  o.on_words = [this, &m] { wake(m); };
  m.process = std::make_unique<node>(parts_, *m.builders, std::move(o));
  m.now = machine::state::up;
  m.doomed = false;
  wake(m);
  time.tell("{} starts, incarnation {}", m.name, m.born);
  check_kept(m);
  time.after(dice_.between(0ns, tick_period), [this, &m, life = m.born] { tick(m, life); });
}

void farm::tick(machine& m, std::uint64_t life) {
  if (!m.process || m.born != life) return;
  if (m.runs()) {
    sync(m);
    on(m, [](node& n) { n.tick(); });
    wake(m);
  }
  time.after(m.global(tick_period), [this, &m, life] { tick(m, life); });
}

void farm::crash(machine& m) {
  if (!m.process || m.doomed) return;
  time.tell("{} crashes", m.name);
  m.doomed = true;
  wake(m);
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
  for (auto i : awake_) {
    auto& m = machines_[i];
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
  wake(m); // or its clock would stand where it stood when it last did something
  m.now = machine::state::paused;
  if (dogs) m.builders->stop_watchdogs(true);
}

void farm::sleep(machine& m) {
  if (m.now != machine::state::up) return;
  time.tell("{} sleeps", m.name);
  wake(m);
  m.now = machine::state::asleep;
  m.builders->sleep(true);
}

void farm::resume(machine& m) {
  if (m.now != machine::state::paused && m.now != machine::state::asleep) return;
  time.tell("{} goes on", m.name);
  wake(m);
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
  on(m, [t = m.local(time.now())](node& n) { n.pass(t); });
}

bool farm::run_until(const std::function<bool()>& done, nanoseconds end) {
  while (!done())
    if (!step(end)) return done();
  return true;
}

void farm::wake(machine& m) {
  if (!awake_.insert(m.number).second || !m.runs()) return;
  const auto then = m.local(instant_);
  if (!m.due || *m.due > then) m.process->pass(then); // else it was stopped, and has not yet come to any instant since
}

// Nothing happens on those that are awake, either.
void farm::rest() {
  for (auto i : awake_) {
    auto& m = *machines_[i];
    if (m.due) due_.erase({m.global(*m.due), i});
    m.due = m.runs() ? m.process->next_due() : std::nullopt;
    if (m.due) due_.emplace(m.global(*m.due), i);
  }
  awake_.clear();
}

/// When the first of those that rest is due.
std::optional<nanoseconds> farm::first_due() {
  while (!due_.empty()) {
    const auto [when, i] = *due_.begin();
    if (machines_[i]->runs()) return when;
    machines_[i]->due.reset(); // when it goes on it is woken
    due_.erase(due_.begin());
  }
  return {};
}

/// Those that are due now; they come to this instant at once, as all that are awake.
void farm::wake_due() {
  for (auto d = due_.begin(); d != due_.end() && d->first <= time.now() + 2us; ++d) // global() rounds
    if (auto& m = *machines_[d->second]; *m.due <= m.local(time.now())) awake_.insert(m.number);
}

bool farm::step(nanoseconds end) {
  bury();
  ready_.clear();
  for (auto i : awake_)
    if (auto& m = *machines_[i]; m.runs() && m.process->can_run()) ready_.push_back(&m);
  if (!ready_.empty()) {
    auto& m = *ready_[dice_.below(ready_.size())];
    on(m, [](node& n) { n.world().run_one(); });
    time.note(static_cast<std::uint64_t>(m.name[0]));
    if (dice_.chance(0.1)) on(m, [](node& n) { n.pump(); });
    return true;
  }
  for (auto i : awake_)
    if (auto& m = *machines_[i]; m.runs() && on(m, [](node& n) { return n.pump(); })) return true;
  rest();
  auto next = time.next();
  if (const auto due = first_due(); due && (!next || *due < *next)) next = due;
  if (!next || *next > end) {
    time.pass(end);
    return false;
  }
  const auto t = std::max(*next, time.now());
  time.pass(t);
  wake_due();
  for (auto i : awake_)
    if (auto& m = *machines_[i]; m.runs()) sync(m);
  instant_ = t;
  return true;
}

} // namespace coppice::sim
