#include "actors/lock/session.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"

namespace coppice::actors {

session_state::session_state(rt::self<interface>* self, config c, ledger_actor ledger)
  : self_(self), config_(std::move(c)), ledger_(std::move(ledger)), lease_(config_.leases) {}

session_state::interface::behavior_type session_state::make_behavior() {
  open();
  next_tick();
  return {
    [this](atom::get_atom) -> caf::result<session_info> {
      rt::reply<session_info> out{self_};
      if (open_)
        out.deliver(info());
      else
        waiting_.push_back(out);
      return out;
    },
    [this](atom::lease_atom) { return current(); },
    [this](atom::tick_atom) { tick(); },
  };
}

void session_state::open() {
  if (std::exchange(opening_, true)) return;
  auto sent = config_.clock->now();
  auto& me = config_.me;
  transact<ledger::done>(
    self_, ledger_, ledger::open_session{me.node, me.incarnation, me.session, config_.leases.lease_ttl.count(), config_.url},
    [this, sent](ledger::done&) {
      opening_ = false;
      lease_.on_acknowledged(sent);
      term_ = static_cast<std::uint64_t>(sent.time_since_epoch().count());
      open_ = true;
      for (auto& w : std::exchange(waiting_, {})) w.deliver(info());
    },
    [this](const error& e) {
      opening_ = false;
      // a newer process of this node has the ledger: this one must not go on
      if (e.code == ec::session_over) throw std::runtime_error("the node's session is taken: " + e.what);
      // nor one that would hold on to its locks for too long: that is for people to mend
      if (e.code == ec::invalid) throw std::runtime_error("the node's session is refused: " + e.what);
      rt::log::warn("SESSION", "session not opened, tried again at the next tick error={}", to_string(e));
    });
}

void session_state::renew() {
  auto sent = config_.clock->now();
  transact<ledger::done>(
    self_, ledger_, ledger::keep_alive{config_.me.session, config_.leases.lease_ttl.count()},
    [this, sent](ledger::done&) { lease_.on_acknowledged(sent); },
    [this](const error& e) {
      if (e.code == ec::session_over || e.code == ec::invalid) {
        open_ = false;
        open();
      } else {
        rt::log::warn("SESSION", "lease not renewed error={}", to_string(e));
      }
    });
}

lease_term session_state::current() const {
  if (config_.keeps_ledger) return {term_, lease_forever};
  const auto until = lease_.deadline().time_since_epoch();
  return {term_, std::chrono::duration_cast<std::chrono::milliseconds>(until).count()};
}

session_info session_state::info() const {
  auto me = config_.me;
  me.lease = current();
  return me;
}

void session_state::tick() {
  if (open_)
    renew();
  else
    open();
  self_->doing(open_ ? "session " + config_.me.session.to_string().substr(0, 8) + " open" : "opening the session");
  // one out of turn has no next one, or there would be more and more
  if (due_ - config_.clock->now() < config_.leases.renew_interval / 2) next_tick();
}

void session_state::next_tick() {
  due_ = config_.clock->now() + config_.leases.renew_interval;
  self_->later(config_.leases.renew_interval, atom::tick_v);
}

} // namespace coppice::actors
