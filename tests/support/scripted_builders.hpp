#pragma once

#include "runtime/process.hpp"
#include "tests/support/builder_order.hpp"
#include "tests/support/world.hpp"

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>

namespace coppice::test {

/// Processes of a world: a builder takes a while and writes its environment variable `text` to its output, or fails as
/// the script says. Notes two builders of one output at once (INV-1t).
class scripted_builders final : public rt::process_port {
public:
  explicit scripted_builders(world& w) : world_(w) {}

  /// Of the derivation of this name, so many processes do not start before one does.
  std::map<std::string, int> starts_that_fail;
  static constexpr std::chrono::milliseconds start_delay{1}, build_time{300};

  std::size_t running() const { return running_.size(); }
  /// What must never have happened, a line for each.
  const std::string& faults() const { return faults_; }

  void start(rt::process_id id, rt::process_spec spec, rt::process_observer observer) override {
    builder b;
    static_cast<builder_order&>(b) = read_builder_order(spec);
    if (auto left = starts_that_fail.find(b.env["name"]); left != starts_that_fail.end() && left->second-- > 0)
      return world_.after(start_delay, [observer] { end(observer, rt::process_end::not_started); });
    for (auto& [other, its] : running_)
      if (its.env["out"] == b.env["out"]) faults_ += "two builders at once make " + b.env["out"] + "\n";
    b.observer = std::move(observer);
    running_.emplace(id, std::move(b));
    world_.after(start_delay, [this, id] { say(id); });
    world_.after(build_time, [this, id] { finish(id); });
  }
  void ack(rt::process_id, std::size_t) override {}
  void extend(rt::process_id, rt::boot_clock::time_point) override {}
  /// As SIGKILL does: nothing of it runs any more, its end is told later.
  void cancel(rt::process_id id, std::chrono::milliseconds) override {
    auto gone = running_.extract(id);
    if (gone.empty()) return;
    world_.after(start_delay, [observer = gone.mapped().observer] { end(observer, rt::process_end::cancelled); });
  }

private:
  struct builder : builder_order {
    rt::process_observer observer;
  };

  static void end(const rt::process_observer& observer, rt::process_end how) {
    rt::process_exit e;
    e.end = how;
    e.text = "as the script says";
    e.report = "r";
    observer.exited(e);
  }
  void say(rt::process_id id) {
    if (auto b = running_.find(id); b != running_.end())
      b->second.observer.output("building " + b->second.env["name"] + "\n");
  }
  void finish(rt::process_id id) {
    auto done = running_.extract(id);
    if (done.empty()) return;
    auto& b = done.mapped();
    const std::filesystem::path out = b.env["out"];
    std::ofstream{b.store / out.filename()} << b.env["text"];
    end(b.observer, rt::process_end::exited);
  }

  world& world_;
  std::map<rt::process_id, builder> running_;
  std::string faults_;
};

} // namespace coppice::test
