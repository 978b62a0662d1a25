#include "actors/lock/ledger_link.hpp"

namespace coppice::actors {

ledger_link_state::ledger_link_state(rt::self<interface>* self, config c, farm_ledger_actor hub, lock_manager_actor locks)
    : self_(self), config_(std::move(c)), hub_(std::move(hub)), locks_(std::move(locks)) {}

ledger_link_state::interface::behavior_type ledger_link_state::make_behavior() {
  self_->send(self_->incarnation(), atom::tick_v);
  return {
      [this](atom::transact_atom, ledger::transaction& t) -> caf::result<ledger::answer> {
        ++passed_;
        return self_->delegate(hub_, atom::transact_v, std::move(t));
      },
      [](atom::done_atom) {},
      [this](atom::tick_atom) { watch_again(); },
      [this](atom::changed_atom, ledger::changed& c) { self_->send(locks_, atom::changed_v, std::move(c)); },
      [this](atom::watch_atom) { watch(); },
  };
}

void ledger_link_state::watch() {
  self_->send(hub_, atom::watch_v, watch_ledger{config_.session}, ledger_watcher_actor{self_->stable()});
}

void ledger_link_state::watch_again() {
  watch();
  self_->doing("at " + config_.hub.value + ", " + std::to_string(passed_) + " transactions passed on");
  self_->later(config_.watch_interval, atom::tick_v);
}

} // namespace coppice::actors
