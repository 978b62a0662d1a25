#pragma once

#include "tests/sim/farm.hpp"

#include <set>
#include <string_view>
#include <vector>

namespace coppice::sim {

/// What can happen to a farm. Each run draws some of these kinds.
enum class fault {
  crash,           ///< a machine's process is killed, and starts again
  power_cut,       ///< its power fails: what was not synced is forgotten, or some of it
  lose_machine,    ///< a member never comes back
  pause,           ///< a daemon is stopped for a while; its watchdogs go on
  pause_watchdogs, ///< likewise, and its watchdogs are stopped with it
  sleep,           ///< a whole machine is suspended, and its boot time goes on
  kill_actor,      ///< any actor but ROOT, just before or after it handles a message
  cut,             ///< two machines do not hear each other any more
  cut_one_way,     ///< one does not hear the other
  clog,            ///< a random part of the links stops one after the other, and starts again in another order
  storm,           ///< words are lost, said twice, late and out of order
  ledger_accident, ///< the ledger's disk fails, or the machine dies, just before or after a commit
  lose_blob,       ///< the store's disk loses a blob that was durable
  flip_blob,       ///< likewise, a bit of it
  spoil_reads,     ///< what members read from the store is spoilt on the way
  refuse_puts,     ///< the store is full at times
  collect,         ///< a janitor condemns and retires what it may, and deletes it late
  drift,           ///< clocks run apart, within what leases stand
  drift_beyond,    ///< and beyond
  last_ = drift_beyond
};
std::string_view to_string(fault f);
inline constexpr std::size_t faults_max = static_cast<std::size_t>(fault::last_) + 1;

/// Lets faults of the given kinds happen to a farm, at random, until it is told to stop.
class nemesis {
public:
  nemesis(farm& f, std::set<fault> kinds, std::uint64_t seed);
  nemesis(const nemesis&) = delete;
  nemesis& operator=(const nemesis&) = delete;

  /// Begins, with a fault every `pause` or so.
  void begin(nanoseconds pause);
  /// Nothing happens any more, and all that can be mended is.
  void heal();
  std::uint64_t count(fault f) const { return counts_[static_cast<std::size_t>(f)]; }

private:
  void strike();
  void strike(fault f);
  void crash();
  void cut_power();
  void lose_machine();
  void stop(fault how);
  void kill_actor();
  void cut(bool one_way);
  void clog();
  void storm();
  void ledger_accident();
  void spoil_blob(bool loses);
  void collect();
  void collect_later(const std::string& key);
  machine& any() { return *dice_.one_of(farm_.machines()); }
  machine& any_member();
  void later(nanoseconds least, nanoseconds most, std::function<void()> f);

  farm& farm_;
  const std::vector<fault> kinds_;
  dice dice_;
  nanoseconds pause_{0};
  bool over_ = false;
  bool lost_ = false;
  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(faults_max);
};

} // namespace coppice::sim
