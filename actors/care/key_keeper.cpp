#include "actors/care/key_keeper.hpp"

#include "messages/wire.hpp"
#include "runtime/log.hpp"

namespace coppice::actors {

key_keeper_state::key_keeper_state(rt::self<interface>* self, config c) : self_(self), config_(std::move(c)) {}

key_keeper_state::interface::behavior_type key_keeper_state::make_behavior() {
  self_->send(self_->incarnation(), atom::tick_v);
  return {
      [this](atom::tick_atom) { look(); },
      [this](atom::stored_atom, const caf::error& e) { on_stored(e); },
  };
}

void key_keeper_state::look() {
  auto keys = rt::read_authorized(config_.authorized);
  auto list = keys ? wire::encode(*keys) : std::string{};
  if (!keys || list == stored_) { // of a list that makes no sense BRIDGE complains, and keeps the one before
    self_->later(config_.interval, atom::tick_v);
    return;
  }
  auto me = self_->incarnation();
  const bool posted = rt::post_and_send(
      *config_.pool, [authorize = config_.authorize, keys = std::move(*keys)] { return authorize(keys); },
      [me](expected<void> done) { caf::anon_send(me, atom::stored_v, done ? caf::error{} : make_error(done.error())); },
      [me](const std::string& what) { caf::anon_send(me, atom::stored_v, make_error(ec::crashed, what)); });
  if (posted)
    storing_ = std::move(list);
  else
    self_->later(config_.interval, atom::tick_v);
}

void key_keeper_state::on_stored(const caf::error& e) {
  self_->later(config_.interval, atom::tick_v);
  if (!e) {
    stored_ = std::move(storing_);
    said_.clear();
    self_->doing("all know the list");
  } else if (auto why = from_caf(e).what; why != said_) {
    self_->doing("the others do not know who is let in: " + why);
    rt::log::warn("KEY_KEEPER", "other machines do not know the allow-list, tried again and again error={}", why);
    said_ = std::move(why);
  }
}

} // namespace coppice::actors
