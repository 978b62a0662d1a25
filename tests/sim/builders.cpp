#include "tests/sim/builders.hpp"

#include "nix/store_path.hpp"
#include "tests/support/builder_order.hpp"

#include <fstream>

namespace coppice::sim {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

namespace {

/// Between a process's deed and the moment when its node hears of it.
constexpr nanoseconds told_after = 1ms;

milliseconds to_ms(rt::boot_clock::time_point t) {
  if (t == rt::boot_clock::time_point::max()) return rt::watchdog::never;
  return std::chrono::duration_cast<milliseconds>(t.time_since_epoch());
}

} // namespace

class builder_port final : public rt::process_port {
public:
  explicit builder_port(machine_builders& all) : all_(all) {}
  void start(rt::process_id id, rt::process_spec spec, rt::process_observer observer) override {
    all_.start(id, spec, std::move(observer));
  }
  void ack(rt::process_id, std::size_t) override {}
  void extend(rt::process_id id, rt::boot_clock::time_point deadline) override { all_.extend(id, deadline); }
  void cancel(rt::process_id id, milliseconds) override { all_.cancel(id); }

private:
  machine_builders& all_;
};

machine_builders::machine_builders(std::string machine, timeline& time, std::uint64_t seed, machine_time clock,
                                   std::map<std::string, build_script> scripts, build_observer& observer)
    : machine_(std::move(machine))
    , time_(time)
    , dice_(seed)
    , clock_(std::move(clock))
    , scripts_(std::move(scripts))
    , observer_(observer) {}

std::unique_ptr<rt::process_port> machine_builders::port() {
  return std::make_unique<builder_port>(*this);
}

void machine_builders::start(rt::process_id id, const rt::process_spec& spec, rt::process_observer observer) {
  auto order = test::read_builder_order(spec);
  auto& script = scripts_[order.env["name"]];
  if (script.starts_that_fail > 0) {
    --script.starts_that_fail;
    after(told_after, [observer] {
      rt::process_exit e;
      e.end = rt::process_end::not_started;
      e.text = "as the script says";
      observer.exited(e);
    });
    return;
  }
  rt::watchdog::terms terms;
  if (spec.watchdog)
    terms = {to_ms(spec.watchdog->deadline), spec.watchdog->kill_grace, spec.watchdog->freeze_max, true};
  for (auto& fd : spec.fds)
    fd->reset(); // read to their end; all machines together have but one process's descriptors
  const std::filesystem::path out = order.env["out"];
  builder b{id,
            std::move(observer),
            rt::watchdog{terms},
            order.env["name"],
            out.string(),
            order.env["text"],
            order.store / out.filename(),
            dice_.between(script.at_least, script.at_most),
            {},
            false};
  if (script.varies) b.text += "made on " + machine_ + " as number " + std::to_string(++made_) + "\n";
  time_.tell("{}: builder {} of {} starts", machine_, id, b.name);
  auto& placed = running_.insert_or_assign(id, std::move(b)).first->second;
  if (placed.dog.at(boot_ms()) != rt::watchdog::order::run) return end(id, rt::process_end::lease_over, {});
  later(told_after, id, [](builder& x) { x.observer.output("building " + x.name + "\n"); });
  go(placed);
  look(placed);
}

void machine_builders::after(nanoseconds delay, std::function<void()> f) {
  time_.after(delay, [this, life = life_, f = std::move(f)] {
    if (life != life_) return;
    clock_.on_news();
    f();
  });
}

void machine_builders::later(nanoseconds delay, rt::process_id id, std::function<void(builder&)> f) {
  after(delay, [this, id, f = std::move(f)] {
    if (auto found = running_.find(id); found != running_.end()) f(found->second);
  });
}

void machine_builders::go(builder& b) {
  if (b.runs || asleep_) return;
  b.runs = true;
  b.since = time_.now();
  b.turn = ++turns_;
  observer_.runs(machine_, b.out);
  later(b.left, b.id, [this, turn = b.turn](builder& x) {
    if (x.runs && x.turn == turn) finish(x.id);
  });
}

void machine_builders::stand(builder& b) {
  if (!b.runs) return;
  b.runs = false;
  b.left -= time_.now() - b.since;
  observer_.rests(machine_, b.out);
}

/// As its watchdog does, which wakes for nothing else.
void machine_builders::look(builder& b) {
  if (dogs_stopped_ || asleep_) return;
  const auto now = boot_ms();
  const auto since = b.dog.frozen_at();
  switch (b.dog.at(now)) {
  case rt::watchdog::order::run:
    if (!b.runs) {
      go(b);
      if (since != rt::watchdog::never) {
        time_.tell("{}: builder {} of {} goes on", machine_, b.id, b.name);
        b.observer.thawed(now - since);
      }
    }
    break;
  case rt::watchdog::order::freeze:
    if (since == rt::watchdog::never) {
      time_.tell("{}: builder {} of {} stands still", machine_, b.id, b.name);
      stand(b);
      b.observer.frozen();
    }
    break;
  case rt::watchdog::order::kill: return end(b.id, rt::process_end::lease_over, {});
  }
  if (const auto wake = b.dog.wake(); wake != rt::watchdog::never)
    later(clock_.until(wake), b.id, [this, wake](builder& x) {
      if (x.dog.wake() == wake) look(x);
    });
}

void machine_builders::extend(rt::process_id id, rt::boot_clock::time_point deadline) {
  auto found = running_.find(id);
  if (found == running_.end()) return;
  found->second.dog.extend(to_ms(deadline));
  look(found->second);
}

void machine_builders::cancel(rt::process_id id) {
  end(id, rt::process_end::cancelled, {});
}

void machine_builders::finish(rt::process_id id) {
  auto& b = running_.at(id);
  const auto& script = scripts_[b.name];
  if (script.fails || script.dies) return end(id, rt::process_end::exited, {}, script.dies ? 9 : 0);
  std::ofstream{b.file} << b.text;
  observer_.made(machine_, b.out, b.text);
  end(id, rt::process_end::exited, {});
}

void machine_builders::end(rt::process_id id, rt::process_end how, const std::string& text, int signal) {
  auto gone = running_.extract(id);
  if (gone.empty()) return;
  auto& b = gone.mapped();
  stand(b);
  rt::process_exit e;
  e.end = how;
  e.text = text;
  e.report = "r";
  e.signal = signal;
  e.code = how == rt::process_end::exited && scripts_[b.name].fails ? 1 : 0;
  time_.tell("{}: builder {} of {} ends: {}", machine_, id, b.name, static_cast<int>(how));
  after(told_after, [observer = b.observer, e] { observer.exited(e); });
}

void machine_builders::kill_all() {
  ++life_;
  for (auto& [id, b] : running_)
    stand(b);
  running_.clear();
}

void machine_builders::stop_watchdogs(bool stopped) {
  dogs_stopped_ = stopped;
  if (!stopped)
    for (auto i = running_.begin(); i != running_.end();)
      look((i++)->second);
}

void machine_builders::sleep(bool asleep) {
  asleep_ = asleep;
  for (auto i = running_.begin(); i != running_.end();) {
    auto& b = (i++)->second;
    asleep ? stand(b) : look(b);
  }
}

} // namespace coppice::sim
