#pragma once

#include "tests/sim/forgetful_disk.hpp"
#include "tests/sim/names.hpp"
#include "tests/sim/node.hpp"
#include "tests/sim/workload.hpp"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace coppice::sim {

struct farm_options {
  std::uint64_t seed = 0;
  std::size_t members = 2; ///< besides the hub
  std::uint32_t hub_slots = 1, member_slots = 2;
  double rate_error = 0; ///< by how much at most a machine's clock runs too fast or too slow
  actors::lease_settings lease;
  store::ledger_policy policy;
  std::map<std::string, build_script> scripts;
  mutant broken = mutant::none;
  bool disks_forget = false; ///< what was not synced, when their power fails
  bool prints = false;
  bool times_hub = false;
};

/// A machine: what outlives the processes on it.
class machine {
public:
  enum class state { up, down, paused, asleep, lost };

  machine(std::size_t i, double r, std::uint32_t s) : number(i), name(machine_name(i)), rate(r), slots(s) {}
  const std::size_t number;
  const std::string name;
  const double rate; ///< of its clock, by the timeline's
  const std::uint32_t slots;
  const test::scratch_dir scratch;
  const std::filesystem::path state_dir = scratch.path / "state";
  std::optional<forgetful_disk> disk; ///< of the state directory, if it forgets
  std::set<inhash> kept;              ///< entries that were durable when its power failed
  std::unique_ptr<machine_builders> builders;
  std::unique_ptr<node> process; ///< null while it is down
  state now = state::down;
  bool doomed = false; ///< its process ends as soon as the present step is over
  std::uint64_t born = 0;
  std::optional<nanoseconds> due; ///< while it rests: the boot time at which the next timer of its actors is due

  /// Its boot time at that time.
  nanoseconds local(nanoseconds t) const { return scaled(t, rate); }
  /// When its boot time is that, or a moment later.
  nanoseconds global(nanoseconds boot) const { return scaled(boot, 1 / rate) + std::chrono::microseconds{1}; }
  bool runs() const { return process && now == state::up && !doomed; }

private:
  static nanoseconds scaled(nanoseconds t, double by) {
    return nanoseconds{static_cast<std::int64_t>(static_cast<double>(t.count()) * by)};
  }
};

/// A hub and its members, on one thread and one timeline.
class farm {
public:
  explicit farm(const farm_options& o);
  ~farm();
  farm(const farm&) = delete;
  farm& operator=(const farm&) = delete;

  timeline time;
  network net;
  blob_disk blobs;
  invariants watcher{time, blobs};
  ledger_disk ledger;
  double spoilt_reads = 0, refused_puts = 0; ///< how often the store's network and disk err

  std::vector<std::unique_ptr<machine>>& machines() { return machines_; }
  machine& hub() { return *machines_.front(); }

  /// Starts a machine's process, if it has none.
  void start(machine& m);
  /// SIGKILL: when the present step is over.
  void crash(machine& m);
  /// Of changes that were not synced, each survives with this chance; `at_sync`: at the n-th sync from now on.
  void cut_power(machine& m, double survives, std::optional<std::uint64_t> at_sync);
  /// SIGSTOP and SIGCONT of the daemon; with `dogs`, of the watchdogs, too.
  void pause(machine& m, bool dogs);
  void sleep(machine& m);
  void resume(machine& m);
  /// It never comes back.
  void lose(machine& m);
  /// Something is said to it, or done: it does not rest. Who speaks to its actors from outside says so first.
  void wake(machine& m);

  /// Runs until `done()`; false if it is not so at that time.
  bool run_until(const std::function<bool()>& done, nanoseconds end);
  void run_for(nanoseconds d) {
    run_until([] { return false; }, time.now() + d);
  }
  /// Of all that happened.
  std::uint64_t hash() const { return time.hash(); }
  /// CPU time that the hub's actors and sessions have taken, if it is measured.
  nanoseconds hub_cpu() const { return hub_cpu_; }

private:
  bool step(nanoseconds end);
  /// Lets a machine's process do something.
  template <class F>
  auto on(machine& m, F f);
  void sync(machine& m);
  void bury();
  void check_kept(machine& m);
  void rest();
  std::optional<nanoseconds> first_due();
  void wake_due();
  void tick(machine& m, std::uint64_t life);
  expected<void> reaches_store(const machine& m);

  const farm_options options_;
  dice dice_;
  wires lines_;
  farm_parts parts_;
  std::set<std::size_t> awake_; ///< all others rest: nothing happens on them until a timer is due, or they are woken
  std::set<std::pair<nanoseconds, std::size_t>> due_; ///< of those that rest: when they are due, by the timeline
  nanoseconds instant_{0};                            ///< the newest to which those that are awake have come
  std::vector<machine*> ready_;                       ///< for step()
  nanoseconds hub_cpu_{0};
  std::vector<std::unique_ptr<machine>> machines_;
};

} // namespace coppice::sim
