#include "actors/care/key_keeper.hpp"

#include "messages/wire.hpp"
#include "runtime/log.hpp"

namespace coppice::actors {

key_keeper_state::key_keeper_state(rt::self<interface>* self, config c) : self_(self), config_(std::move(c)) {}

key_keeper_state::interface::behavior_type key_keeper_state::make_behavior() {
  self_->send(self_->incarnation(), atom::tick_v);
  return {
      [this](atom::tick_atom) { look(); },
      [this](atom::stored_atom, std::string& list, const caf::error& e) { on_stored(std::move(list), e); },
  };
}

void key_keeper_state::look() {
  const auto work = [c = config_, known = stored_]() -> expected<std::string> {
    auto keys = rt::read_authorized(c.authorized);
    if (!keys) return known; // BRIDGE complains of a list that makes no sense, and keeps the one before
    auto list = wire::encode(*keys);
    if (list == known) return known;
    return c.authorize(*keys).map([&] { return std::move(list); });
  };
  auto told = [me = self_->incarnation()](std::string list, caf::error e) {
    caf::anon_send(me, atom::stored_v, std::move(list), std::move(e));
  };
  const bool posted = rt::post_and_send(
      *config_.pool, work,
      [told](expected<std::string> list) { list ? told(std::move(*list), {}) : told({}, make_error(list.error())); },
      [told](const std::string& what) { told({}, make_error(ec::crashed, what)); });
  if (!posted) told({}, make_error(ec::overloaded, "the pool is full"));
}

void key_keeper_state::on_stored(std::string list, const caf::error& e) {
  self_->later(config_.interval, atom::tick_v);
  if (!e) {
    stored_ = std::move(list);
    said_.clear();
    self_->doing(stored_.empty() ? "there is no list" : "all know the list");
  } else if (auto why = from_caf(e).what; why != said_) {
    self_->doing("the others do not know who is let in: " + why);
    rt::log::warn("KEY_KEEPER", "other machines do not know the allow-list, tried again and again error={}", why);
    said_ = std::move(why);
  }
}

} // namespace coppice::actors
