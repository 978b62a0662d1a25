#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"

#include <functional>

/// A WORKER that only listens.
class fake_worker {
public:
  using interface = coppice::worker_actor;
  static constexpr const char* name = "worker";
  using on_exited = std::function<void(const coppice::build_exit&)>;
  using on_progress = std::function<void(const coppice::step_progress&)>;

  fake_worker(coppice::rt::self<interface>*, on_exited exited, on_progress progress)
      : exited_(std::move(exited)), progress_(std::move(progress)) {}
  interface::behavior_type make_behavior() {
    using namespace coppice;
    return {[](atom::changed_atom, const ledger::lock_state&) {},
            [this](atom::exited_atom, const build_exit& e) { exited_(e); },
            [](atom::progress_atom, const build_look&) {},
            [](atom::stop_atom, const std::string&) {},
            [](atom::drop_atom, fence) { return ledger::done{}; },
            [](atom::packed_atom, const packed_outputs&) { return ledger::done{}; },
            [](atom::failed_atom, failure, const std::string&) {},
            [](atom::stored_atom, const packed_outputs&) {},
            [](atom::failed_atom, const caf::error&) {},
            [](atom::done_atom, std::uint64_t, const caf::error&) {},
            [this](atom::progress_atom, const step_progress& p) { progress_(p); },
            [](atom::tick_atom) {}};
  }

private:
  on_exited exited_;
  on_progress progress_;
};
