#include "actors/build/executor.hpp"

#include "runtime/log.hpp"

#include <signal.h>
#include <string.h>

namespace coppice::actors {
namespace {

using std::chrono::milliseconds;

/// Written into the log of the build, in its order.
constexpr const char* frozen_note = "coppice: this machine has lost its lease: the build stands still\n";

std::string seconds(milliseconds d) {
  return std::to_string(std::chrono::ceil<std::chrono::seconds>(d).count()) + " seconds";
}

/// How a sandbox that stood ended: bwrap gives the builder's exit code, or 128 and its signal.
std::pair<failure, std::string> judge(const std::string& drv, const limit_settings& limits, const rt::process_exit& e) {
  const std::string builder = "builder for '" + drv + "' ";
  if (e.report.size() > 1) return {failure::build_failed, builder + "cannot be started: " + e.report.substr(1)};
  // also when it made up for it: whether the next look or its end came first must not matter
  if (e.pids)
    return {failure::pids, builder + "failed after starting more than the " + std::to_string(limits.processes_max) +
                               " processes and threads allowed (limits.processes_max)"};
  if (e.code == 0 && e.signal == 0) return {failure::none, {}};
  if (e.oom)
    return {failure::oom, builder + "was killed for using more memory than the " +
                              std::to_string(limits.memory_bytes_max) + " bytes allowed (limits.memory_bytes_max)"};
  if (e.signal != 0)
    return {failure::infra, "sandbox of '" + drv + "' was killed from outside by signal " + std::to_string(e.signal)};
  auto text = builder + "failed with exit code " + std::to_string(e.code);
  if (const int signal = e.code - 128; signal > 0 && signal < NSIG)
    text += " (perhaps by signal " + std::to_string(signal) + ", " + ::strsignal(signal) + ")";
  return {failure::build_failed, text};
}

std::pair<failure, std::string> explain(const std::string& drv, const limit_settings& limits,
                                        const rt::process_exit& e) {
  switch (e.end) {
  case rt::process_end::not_started: return {failure::infra, "cannot start the sandbox of '" + drv + "': " + e.text};
  case rt::process_end::cancelled: return {failure::cancelled, "building of '" + drv + "' was cancelled"};
  case rt::process_end::timed_out:
    return {failure::timed_out, "building of '" + drv + "' timed out after " + seconds(limits.timeout)};
  case rt::process_end::silent:
    return {failure::silent, "building of '" + drv + "' timed out after " + seconds(limits.max_silent) + " of silence"};
  case rt::process_end::log_limit:
    return {failure::log_limit, "'" + drv + "' killed after writing more than " + std::to_string(limits.log_bytes_max) +
                                    " bytes of log output"};
  case rt::process_end::lease_over:
    return {failure::infra, "building of '" + drv + "' was ended: the lease of its machine ran out"};
  case rt::process_end::exited: break;
  }
  if (!e.report.starts_with('r'))
    return {failure::infra,
            "sandbox of '" + drv + "' could not be set up: " + (e.report.empty() ? "see its log" : e.report)};
  return judge(drv, limits, e);
}

} // namespace

build_exit describe_exit(const std::string& drv, const limit_settings& limits, const rt::process_exit& e) {
  build_exit result;
  std::tie(result.failure, result.reason) = explain(drv, limits, e);
  result.exit_code = e.code;
  result.signal = e.signal;
  result.usage = {e.wall.count(), e.cpu_user.count(), e.cpu_system.count(), e.memory_peak_bytes, e.output_bytes};
  return result;
}

executor_state::executor_state(rt::self<interface>* self, config c, worker_actor worker, log_relay_actor relay)
    : self_(self), config_(std::move(c)), worker_(std::move(worker)), watch_(config_.watch) {
  self_->monitor(relay);
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) {
    // without it nobody would take the builder's output
    stop({failure::infra, "the log of '" + config_.drv + "' was lost: " + rt::describe_reason(down.reason)},
         milliseconds{0});
  });
  rt::process_observer observer;
  observer.output = [relay](std::string bytes) { caf::anon_send(relay, atom::output_v, std::move(bytes)); };
  observer.exited = [me = self_->incarnation(), drv = config_.drv, limits = config_.limits,
                     keep = config_.keep](const rt::process_exit& e) {
    caf::anon_send(me, atom::exited_v, describe_exit(drv, limits, e));
  };
  observer.started = [process = process_](pid_t pid) { *process = pid; };
  observer.frozen = [me = self_->incarnation(), relay] {
    caf::anon_send(relay, atom::output_v, std::string{frozen_note});
    caf::anon_send(me, atom::frozen_v);
  };
  observer.thawed = [me = self_->incarnation(), relay](milliseconds stood) {
    caf::anon_send(relay, atom::output_v, "coppice: the build goes on, after " + seconds(stood) + "\n");
    caf::anon_send(me, atom::frozen_v, stood.count());
  };
  config_.processes->start(config_.process, config_.spec, std::move(observer));
  config_.spec.fds.clear();
}

executor_state::~executor_state() {
  if (running_) config_.processes->cancel(config_.process, milliseconds{0});
}

void executor_state::on_frozen() {
  rt::log::warn("EXECUTOR", "lease over, build frozen drv={}", config_.drv);
  self_->doing("the builder of " + config_.drv + " stands still: the node has no lease");
}

void executor_state::on_thawed(milliseconds stood) {
  rt::log::info("EXECUTOR", "lease back, build goes on drv={} frozen_ms={}", config_.drv, stood.count());
  self_->doing("runs the builder of " + config_.drv);
}

executor_actor::behavior_type executor_state::make_behavior() {
  self_->doing("runs the builder of " + config_.drv);
  if (config_.pool) self_->later(watch_.pause(), atom::tick_v);
  return {
      [this](atom::stop_atom, failure why, std::string& reason) {
        stop({why, std::move(reason)}, config_.spec.grace);
      },
      [this](atom::extend_atom, std::int64_t until_ms) {
        config_.processes->extend(config_.process, rt::boot_clock::time_point{milliseconds{until_ms}});
      },
      [this](atom::frozen_atom) { on_frozen(); },
      [this](atom::frozen_atom, std::int64_t stood_ms) { on_thawed(milliseconds{stood_ms}); },
      [this](atom::exited_atom, build_exit& e) { on_exited(std::move(e)); },
      [this](atom::tick_atom) { look(); },
      [this](atom::done_atom, const build_look& l, const caf::error& e) { on_look(l, e); },
  };
}

void executor_state::look() {
  auto told = [me = self_->incarnation()](build_look l, caf::error e) {
    caf::anon_send(me, atom::done_v, std::move(l), std::move(e));
  };
  const bool posted = rt::post_and_send(
      *config_.pool,
      [what = watched_build{config_.scratch, config_.spec.group, process_}, watch = watch_, now = self_->now()] {
        return look_at(what, watch, now);
      },
      [told](expected<build_look> l) { l ? told(std::move(*l), {}) : told({}, make_error(l.error())); },
      [told](const std::string& what) { told({}, make_error(ec::crashed, what)); });
  if (!posted) self_->later(watch_.pause(), atom::tick_v);
}

void executor_state::on_look(const build_look& l, const caf::error& e) {
  if (!running_) return;
  if (e) self_->later(watch_.pause(), atom::tick_v);
  if (e && !std::exchange(blind_, true))
    rt::log::warn("EXECUTOR", "the build is not watched drv={} error={}", config_.drv, to_string(from_caf(e)));
  if (e) return;
  blind_ = false;
  self_->send(worker_, atom::progress_v, l);
  // without grace: it was told by its limit, and each moment costs the machine more
  if (auto v = watch_.on_look(l, self_->now(), config_.drv)) stop({v->why, std::move(v->reason)}, milliseconds{0});
  self_->later(watch_.pause(), atom::tick_v);
}

void executor_state::stop(order o, milliseconds grace) {
  if (!running_) return;
  if (!stopped_) stopped_ = std::move(o);
  config_.processes->cancel(config_.process, grace);
}

void executor_state::on_exited(build_exit e) {
  running_ = false;
  if (e.failure == failure::cancelled && stopped_) {
    e.failure = stopped_->why;
    e.reason = stopped_->reason;
  }
  self_->send(worker_, atom::exited_v, std::move(e));
  self_->quit();
}

} // namespace coppice::actors
