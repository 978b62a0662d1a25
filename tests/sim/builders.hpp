#pragma once

#include "runtime/process.hpp"
#include "runtime/watchdog.hpp"
#include "tests/sim/dice.hpp"
#include "tests/sim/timeline.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace coppice::sim {

/// What the builder of a derivation does.
struct build_script {
  nanoseconds at_least{0}, at_most{0}; ///< how long it runs
  int starts_that_fail = 0;            ///< so many processes do not start before one does
  bool fails = false;                  ///< always, with an exit code
  bool dies = false;                   ///< always, by a signal from outside
  bool varies = false;                 ///< each build of it comes out different
};

/// What builders have done, on all machines; whoever judges listens.
struct build_observer {
  virtual ~build_observer() = default;
  /// From now on a process for this output runs on that machine; or it does not any more, or stands still.
  virtual void runs(const std::string& machine, const std::string& out) = 0;
  virtual void rests(const std::string& machine, const std::string& out) = 0;
  virtual void made(const std::string& machine, const std::string& out, const std::string& text) = 0;
};

/// The builders of one machine, each below its watchdog; they outlive no process of the node. A builder writes its
/// environment variable `text` to its output.
class machine_builders {
public:
  /// `boot_time` is the machine's CLOCK_BOOTTIME now, `later` when that will be so much.
  struct machine_time {
    std::function<nanoseconds()> boot;
    std::function<nanoseconds(nanoseconds boot)> until; ///< from now
    std::function<void()> on_news;                      ///< something of its own accord happens on it
  };
  machine_builders(std::string machine, timeline& time, std::uint64_t seed, machine_time clock,
                   std::map<std::string, build_script> scripts, build_observer& observer);
  machine_builders(const machine_builders&) = delete;
  machine_builders& operator=(const machine_builders&) = delete;

  /// The processes of one node process; its end is the end of all of them, and nobody is told.
  std::unique_ptr<rt::process_port> port();
  void kill_all();
  std::size_t running() const { return running_.size(); }

  /// The watchdogs stand still, too: builders go on beyond their deadlines.
  void stop_watchdogs(bool stopped);
  /// The machine sleeps: nothing runs, its boot time goes on.
  void sleep(bool asleep);

private:
  friend class builder_port;
  struct builder {
    rt::process_id id;
    rt::process_observer observer;
    rt::watchdog dog;
    std::string name, out, text;
    std::filesystem::path file;
    nanoseconds left;  ///< of its work
    nanoseconds since; ///< when it began to run; while it runs
    bool runs = true;
    std::uint64_t turn = 0; ///< events of former turns are void
  };
  void start(rt::process_id id, const rt::process_spec& spec, rt::process_observer observer);
  void extend(rt::process_id id, rt::boot_clock::time_point deadline);
  void cancel(rt::process_id id);
  void finish(rt::process_id id);
  void look(builder& b);
  void go(builder& b);
  void stand(builder& b);
  void end(rt::process_id id, rt::process_end how, const std::string& text, int signal = 0);
  void after(nanoseconds delay, std::function<void()> f);
  void later(nanoseconds delay, rt::process_id id, std::function<void(builder&)> f);
  std::chrono::milliseconds boot_ms() const { return std::chrono::floor<std::chrono::milliseconds>(clock_.boot()); }

  const std::string machine_;
  timeline& time_;
  dice dice_;
  const machine_time clock_;
  std::map<std::string, build_script> scripts_;
  build_observer& observer_;
  std::map<rt::process_id, builder> running_;
  std::uint64_t life_ = 0; ///< rises when all are killed: what they would have said is void
  std::uint64_t turns_ = 0;
  std::uint64_t made_ = 0;
  bool dogs_stopped_ = false, asleep_ = false;
};

} // namespace coppice::sim
