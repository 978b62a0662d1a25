#include "bench/support/idle_worker.hpp"

namespace coppice::bench {
namespace {

using actors::worker_state;

class idle_worker {
public:
  using interface = worker_actor;
  static constexpr const char* name = "idle-worker";

  struct config {
    worker_state::peers peers;
    job work;
    nonce who;
    blob_id blob;
  };
  idle_worker(rt::self<interface>* self, config c) : self_(self), c_(std::move(c)) {}

  interface::behavior_type make_behavior() {
    auto drv = nix::parse_derivation(*c_.work.aterm, c_.work.drv);
    if (!drv) throw std::runtime_error(drv.error().what);
    for (auto& [output, what] : drv->outputs) {
      realised_output o;
      o.name = output;
      o.info.path = *what.path;
      o.info.nar_hash.bytes = c_.blob.bytes;
      o.info.nar_size = 120;
      o.info.deriver = c_.work.drv;
      o.info.blob = c_.blob;
      o.info.blob_size = 100;
      o.info.gen = {1};
      outputs_.push_back(std::move(o));
    }
    start();
    return {
        [](atom::changed_atom, const ledger::lock_state&) {},
        [](atom::exited_atom, const build_exit&) {},
        [](atom::progress_atom, const build_look&) {},
        [](atom::stop_atom, const std::string&) {},
        [](atom::drop_atom, fence) -> caf::result<ledger::done> { return ledger::done{}; },
        [](atom::packed_atom, const packed_outputs&) -> caf::result<ledger::done> { return ledger::done{}; },
        [](atom::failed_atom, failure, const std::string&) {},
        [](atom::stored_atom, const packed_outputs&) {},
        [](atom::failed_atom, const caf::error&) {},
        [](atom::done_atom, std::uint64_t, const caf::error&) {},
        [](atom::progress_atom, const step_progress&) {},
        [](atom::tick_atom) {},
    };
  }

private:
  void start() {
    self_
        ->call(c_.peers.locks, atom::start_v, start_attempt{c_.work.key, c_.work.token, c_.who},
               lock_watcher_actor{self_->stable()})
        .then(
            [this](const granted_lock& g) {
              token_ = g.token;
              commit();
            },
            [this](caf::error& e) { self_->quit(std::move(e)); });
  }
  void commit() {
    self_->call(c_.peers.locks, atom::commit_v, ledger::commit{c_.work.key, token_, outputs_})
        .then(
            [this](ledger::done&) {
              self_->send(c_.peers.locks, atom::unwatch_v, c_.work.key, lock_watcher_actor{self_->stable()});
              self_->quit();
            },
            [this](caf::error& e) { self_->quit(std::move(e)); });
    self_->send(c_.peers.pool, atom::ended_v, c_.work.key, token_); // the outputs are kept: the slot is free
  }

  rt::self<interface>* self_;
  config c_;
  fence token_;
  std::vector<realised_output> outputs_;
};

} // namespace

actors::worker_pool_state::worker_maker idle_workers(blob_id blob) {
  return [=](std::string label, rt::child_options options, const worker_state::config&,
             const worker_state::peers& peers, job j, nonce who, std::optional<store::kept_entry>) {
    return rt::make_child<idle_worker>(std::move(label), options, idle_worker::config{peers, std::move(j), who, blob});
  };
}

} // namespace coppice::bench
