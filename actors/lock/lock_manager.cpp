#include "actors/lock/lock_manager.hpp"

#include "actors/ask.hpp"

#include <type_traits>

namespace coppice::actors {

lock_manager_state::lock_manager_state(rt::self<interface>* self, ledger_actor ledger, session_actor session)
  : self_(self), ledger_(std::move(ledger)), session_(std::move(session)) {}

lock_manager_state::interface::behavior_type lock_manager_state::make_behavior() {
  using namespace ledger;
  self_->set_down_handler([this](caf::scheduled_actor*, caf::down_msg& down) {
    watchers_.remove(caf::actor_cast<watcher>(caf::actor_cast<caf::strong_actor_ptr>(down.source)));
  });
  return {
    [this](atom::acquire_atom, acquire_lock& a, const watcher& w) {
      watch(a.key, w);
      return with_session<answer>([a = std::move(a)](session_id s) {
        return ledger::acquire{a.key, a.drv, a.request, a.epoch, {s, a.nonce}, a.again};
      });
    },
    [this](atom::watch_atom, const std::vector<inhash>& keys, const watcher& w) -> caf::result<lock_states> {
      for (auto& key : keys) watch(key, w);
      rt::reply<lock_states> out{self_};
      forward(read_locks{keys}, out);
      return out;
    },
    [this](atom::start_atom, start_attempt& a, const watcher& w) {
      watch(a.key, w);
      return with_session<granted_lock>([a = std::move(a), this](session_id s) {
        return ledger::start{a.key, a.token, {s, a.nonce}, node_id{}};
      });
    },
    [this](atom::release_atom, release& t) -> caf::result<done> {
      rt::reply<done> out{self_};
      forward(std::move(t), out);
      return out;
    },
    [this](atom::partial_atom, partial& t) -> caf::result<done> {
      rt::reply<done> out{self_};
      forward(std::move(t), out);
      return out;
    },
    [this](atom::reclaim_atom, reclaim_lock& r, const watcher& w) {
      watch(r.key, w);
      return with_session<granted_lock>([r = std::move(r)](session_id s) {
        return ledger::reclaim{r.key, r.drv, {s, r.nonce}, node_id{}, r.built};
      });
    },
    [this](atom::commit_atom, commit& t) -> caf::result<done> {
      rt::reply<done> out{self_};
      forward(std::move(t), out);
      return out;
    },
    [this](atom::fail_atom, fail_attempt& t) -> caf::result<done> {
      rt::reply<done> out{self_};
      forward(std::move(t), out);
      return out;
    },
    [this](atom::unwatch_atom, const inhash& key, const watcher& w) { watchers_.remove(key, w); },
    [this](atom::changed_atom, const changed& c) { tell(c); },
  };
}

void lock_manager_state::watch(const inhash& key, const watcher& w) {
  if (!watchers_.knows(w)) self_->monitor(w);
  watchers_.add(key, w);
}

template <class Answer, class Make>
caf::result<Answer> lock_manager_state::with_session(Make make) {
  rt::reply<Answer> out{self_};
  self_->call(session_, atom::get_v)
    .then(
      [this, out, make](const session_info& me) {
        auto tx = make(me.session);
        if constexpr (requires { tx.node; }) tx.node = me.node;
        if constexpr (std::is_same_v<Answer, granted_lock>)
          transact<ledger::granted>(
            self_, ledger_, std::move(tx),
            [out, lease = me.lease](ledger::granted& g) { out.deliver(granted_lock{g.token, lease}); },
            [out](const error& e) { out.deliver(make_error(e)); });
        else
          forward(std::move(tx), out);
      },
      [out](caf::error& e) { out.deliver(std::move(e)); });
  return out;
}

template <class Answer, class Tx>
void lock_manager_state::forward(Tx tx, rt::reply<Answer> out) {
  if constexpr (std::is_same_v<Answer, ledger::answer>) {
    self_->call(ledger_, atom::transact_v, ledger::transaction{std::move(tx)})
      .then([out](ledger::answer& a) { out.deliver(std::move(a)); },
            [out](caf::error& e) { out.deliver(std::move(e)); });
  } else {
    transact<Answer>(
      self_, ledger_, std::move(tx), [out](Answer& a) { out.deliver(std::move(a)); },
      [out](const error& e) { out.deliver(make_error(e)); });
  }
}

void lock_manager_state::tell(const ledger::changed& changes) {
  for (auto& row : changes.locks)
    for (auto& w : watchers_.of(row.key)) self_->send(w, atom::changed_v, row);
  self_->doing("watching " + std::to_string(watchers_.keys()) + " locks");
}

} // namespace coppice::actors
