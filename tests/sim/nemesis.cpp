#include "tests/sim/nemesis.hpp"

#include "tests/sim/names.hpp"

#include <algorithm>

namespace coppice::sim {

using namespace std::chrono_literals;

std::string_view to_string(fault f) {
  static constexpr std::string_view names[faults_max]{
      "crash",       "power_cut",   "lose_machine", "pause", "pause_watchdogs", "sleep",     "kill_actor",
      "cut",         "cut_one_way", "clog",         "storm", "ledger_accident", "lose_blob", "flip_blob",
      "spoil_reads", "refuse_puts", "collect",      "drift", "drift_beyond"};
  return names[static_cast<std::size_t>(f)];
}

namespace {

/// Those that strike; the others are a state of the whole run.
bool strikes(fault f) {
  return f != fault::drift && f != fault::drift_beyond;
}

std::vector<fault> strikers(const std::set<fault>& kinds) {
  std::vector<fault> all;
  std::copy_if(kinds.begin(), kinds.end(), std::back_inserter(all), strikes);
  return all;
}

} // namespace

nemesis::nemesis(farm& f, std::set<fault> kinds, std::uint64_t seed) : farm_(f), kinds_(strikers(kinds)), dice_(seed) {
  if (kinds.contains(fault::drift_beyond) || kinds.contains(fault::pause_watchdogs))
    farm_.watcher.excuse_side_by_side();
}

void nemesis::begin(nanoseconds pause) {
  pause_ = pause;
  if (!kinds_.empty()) later(0ns, pause_, [this] { strike(); });
}

void nemesis::later(nanoseconds least, nanoseconds most, std::function<void()> f) {
  farm_.time.after(dice_.between(least, most), [this, f = std::move(f)] {
    if (!over_) f();
  });
}

void nemesis::strike() {
  strike(dice_.one_of(kinds_));
  later(pause_ / 4, 2 * pause_, [this] { strike(); });
}

void nemesis::strike(fault f) {
  ++counts_[static_cast<std::size_t>(f)];
  switch (f) {
  case fault::crash: return crash();
  case fault::power_cut: return cut_power();
  case fault::lose_machine: return lose_machine();
  case fault::pause:
  case fault::pause_watchdogs:
  case fault::sleep: return stop(f);
  case fault::kill_actor: return kill_actor();
  case fault::cut: return cut(false);
  case fault::cut_one_way: return cut(true);
  case fault::clog: return clog();
  case fault::storm: return storm();
  case fault::ledger_accident: return ledger_accident();
  case fault::lose_blob: return spoil_blob(true);
  case fault::flip_blob: return spoil_blob(false);
  case fault::spoil_reads: farm_.spoilt_reads = 0.3; return later(1s, 10s, [this] { farm_.spoilt_reads = 0; });
  case fault::refuse_puts:
    farm_.refused_puts = dice_.chance(0.5) ? 1 : 0.3;
    return later(1s, 10s, [this] { farm_.refused_puts = 0; });
  case fault::collect: return collect();
  case fault::drift:
  case fault::drift_beyond: return;
  }
}

machine& nemesis::any_member() {
  return *farm_.machines()[1 + dice_.below(farm_.machines().size() - 1)];
}

void nemesis::crash() {
  auto& m = any();
  farm_.crash(m);
  farm_.time.after(dice_.between(100ms, 20s), [this, &m] { farm_.start(m); });
}

void nemesis::cut_power() {
  auto& m = any();
  auto at_sync = dice_.chance(0.5) ? std::optional{dice_.below(15)} : std::nullopt;
  farm_.cut_power(m, dice_.chance(0.5) ? 0 : 0.5, at_sync);
  farm_.time.after(dice_.between(10s, 20s), [this, &m] { farm_.start(m); });
}

void nemesis::lose_machine() {
  if (std::exchange(lost_, true)) return;
  farm_.lose(any_member());
}

void nemesis::stop(fault how) {
  auto& m = any();
  how == fault::sleep ? farm_.sleep(m) : farm_.pause(m, how == fault::pause_watchdogs);
  later(100ms, dice_.chance(0.3) ? 90s : 15s, [this, &m] { farm_.resume(m); });
}

void nemesis::kill_actor() {
  auto& m = any();
  if (!m.runs()) return;
  auto& w = m.process->world();
  w.kills = [this, &m, &w, left = dice_.below(40), after = dice_.chance(0.5)](
                const std::string& path, const std::string& message, test::world::instant at) mutable {
    if (over_ || path == "/" + m.name) return false; // its end is the end of the process
    if ((at == test::world::instant::after) != after || left-- > 0) return false;
    farm_.time.tell("{} is killed {} {}", path, after ? "after" : "before", message);
    left = UINT64_MAX;
    farm_.time.after(0ns, [&m, life = m.born] {
      if (m.process && m.born == life) m.process->world().kills = nullptr;
    });
    return true;
  };
}

void nemesis::cut(bool one_way) {
  const auto &a = any_member().name, &b = hub_name;
  const bool from_hub = dice_.chance(0.5);
  farm_.time.tell("cut between {} and {}{}", a, b, one_way ? from_hub ? ", from the hub" : ", to the hub" : "");
  if (!one_way || from_hub) farm_.net.cut(b, a);
  if (!one_way || !from_hub) farm_.net.cut(a, b);
  later(100ms, dice_.chance(0.3) ? 90s : 15s, [this, &a, &b] {
    farm_.time.tell("no cut between {} and {}", a, b);
    farm_.net.heal(a, b);
    farm_.net.heal(b, a);
  });
}

void nemesis::clog() {
  std::vector<std::pair<std::string, std::string>> links;
  for (std::size_t i = 1; i < farm_.machines().size(); ++i) {
    auto& name = farm_.machines()[i]->name;
    if (dice_.chance(0.6)) links.emplace_back(name, hub_name);
    if (dice_.chance(0.6)) links.emplace_back(hub_name, name);
  }
  nanoseconds stopped{0};
  for (auto& [from, to] : links) {
    stopped += dice_.between(100ms, 2s);
    farm_.time.after(stopped, [this, from = from, to = to] {
      if (!over_) farm_.net.cut(from, to);
    });
  }
  while (!links.empty()) {
    const auto i = dice_.below(links.size());
    stopped += dice_.between(100ms, 5s);
    farm_.time.after(stopped, [this, l = links[i]] { farm_.net.heal(l.first, l.second); });
    links.erase(links.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void nemesis::storm() {
  auto& w = farm_.net.now;
  w.loss = dice_.chance(0.5) ? 0.02 * static_cast<double>(dice_.below(10)) : 0;
  w.repeat = dice_.chance(0.5) ? 0.1 * static_cast<double>(dice_.below(5)) : 0;
  w.delay_max = dice_.between(1ms, 3s);
  w.reorders = dice_.chance(0.5);
  farm_.time.tell("storm: loss {} repeat {} reorder {}", w.loss, w.repeat, w.reorders);
  later(1s, 30s, [this] { farm_.net.now = {}; });
}

void nemesis::ledger_accident() {
  static constexpr accident kinds[]{accident::fails_before, accident::fails_after, accident::dies_before,
                                    accident::dies_after};
  auto& ledger = farm_.ledger;
  ledger.next = kinds[dice_.below(4)];
  farm_.time.tell("the ledger will have accident {}", static_cast<int>(ledger.next));
  later(20s, 30s, [this] { farm_.start(farm_.hub()); });
}

void nemesis::spoil_blob(bool loses) {
  std::vector<std::string> keys;
  for (auto& [key, bytes] : farm_.blobs.all())
    if (key.starts_with("nar/")) keys.push_back(key);
  if (keys.empty()) return;
  const auto& key = dice_.one_of(keys);
  farm_.time.tell("the store's disk {} {}", loses ? "loses" : "flips a bit of", key);
  farm_.watcher.spoilt(key);
  loses ? farm_.blobs.lose(key) : farm_.blobs.flip(key, dice_.below(1'000'000));
}

// COLLECTOR's part of the protocol (reliability.md 4.11): decided in the ledger first, deleted after, however late.
void nemesis::collect() {
  auto& hub = farm_.hub();
  if (!hub.runs()) return;
  auto& w = hub.process->world();
  auto tell = [&](auto tx) {
    farm_.wake(hub);
    return w.begin(hub.process->ledger(), atom::transact_v, ledger::transaction{std::move(tx)});
  };
  std::set<blob_id> blobs;
  for (auto& [key, bytes] : farm_.blobs.all())
    if (auto id = store::blob_of_key(key); id && dice_.chance(0.7)) blobs.insert(*id);
  for (auto& blob : blobs)
    for (auto& key : farm_.ledger.rows().realised_by(blob, 10))
      if (dice_.chance(0.5)) (void)tell(ledger::retire{key}); // ignored: it may be wanted
  for (auto& blob : blobs) {
    const auto row = farm_.ledger.rows().find_blob(blob);
    if (!row || !row->present) continue;
    auto q = tell(ledger::condemn{blob, row->gen});
    farm_.time.after(2s, [this, q, blob, gen = row->gen, life = hub.born] {
      auto& h = farm_.hub();
      if (!h.process || h.born != life || !q.answered() || !q.get()) return;
      for (auto& key : {store::nar_key(blob, gen), store::closure_key(blob, gen)})
        if (farm_.blobs.find(key)) collect_later(key);
    });
  }
}

void nemesis::collect_later(const std::string& key) {
  farm_.time.after(dice_.between(0ns, 60s), [this, key] {
    farm_.time.tell("{} is deleted", key);
    (void)farm_.blobs.remove(key); // ignored: it may be gone
  });
}

void nemesis::heal() {
  over_ = true;
  farm_.time.tell("all is mended");
  farm_.net.heal_all();
  farm_.net.now = {};
  farm_.spoilt_reads = farm_.refused_puts = 0;
  farm_.ledger.next = accident::none;
  for (auto& m : farm_.machines()) {
    farm_.resume(*m);
    if (m->disk) m->disk->never_fail();
    if (m->process) m->process->world().kills = nullptr;
    if (!m->process) farm_.start(*m);
  }
}

} // namespace coppice::sim
