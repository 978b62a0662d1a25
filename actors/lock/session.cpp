#include "actors/lock/session.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

namespace coppice::actors {

session_state::session_state(rt::self<interface>* self, config c, ledger_actor ledger)
  : self_(self), config_(std::move(c)), ledger_(std::move(ledger)), lease_(config_.leases) {}

session_state::interface::behavior_type session_state::make_behavior() {
  open();
  self_->later(config_.leases.renew_interval, atom::tick_v);
  return {
    [this](atom::get_atom) -> caf::result<session_info> {
      rt::reply<session_info> out{self_};
      if (open_)
        out.deliver(config_.me);
      else
        waiting_.push_back(out);
      return out;
    },
    [this](atom::tick_atom) { tick(); },
  };
}

void session_state::open() {
  auto sent = config_.clock->now();
  auto& me = config_.me;
  transact<ledger::done>(
    self_, ledger_, ledger::open_session{me.node, me.incarnation, me.session},
    [this, sent](ledger::done&) {
      lease_.on_acknowledged(sent);
      open_ = true;
      for (auto& w : std::exchange(waiting_, {})) w.deliver(config_.me);
    },
    [this](const error& e) {
      // a newer process of this node has the ledger: this one must not go on
      if (e.code == ec::session_over) throw std::runtime_error("the node's session is taken: " + e.what);
      rt::log::warn("SESSION", "session not opened, tried again at the next tick error={}", to_string(e));
    });
}

void session_state::renew() {
  auto sent = config_.clock->now();
  transact<ledger::done>(
    self_, ledger_, ledger::keep_alive{config_.me.session},
    [this, sent](ledger::done&) { lease_.on_acknowledged(sent); },
    [this](const error& e) {
      if (e.code == ec::session_over) {
        open_ = false;
        open();
      } else {
        rt::log::warn("SESSION", "lease not renewed error={}", to_string(e));
      }
    });
}

void session_state::tick() {
  if (open_)
    renew();
  else
    open();
  self_->doing(open_ ? "session " + config_.me.session.to_string().substr(0, 8) + " open" : "opening the session");
  self_->later(config_.leases.renew_interval, atom::tick_v);
}

} // namespace coppice::actors
