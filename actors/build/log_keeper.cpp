#include "actors/build/log_keeper.hpp"

#include "actors/build/worker_files.hpp"
#include "runtime/log.hpp"

#include <algorithm>
#include <utility>

namespace coppice::actors {

log_keeper_state::log_keeper_state(rt::self<interface>* self, config c, worker_actor worker, std::uint64_t number)
    : self_(self), config_(std::move(c)), worker_(std::move(worker)), number_(number), delay_(config_.retry_first) {}

// Killed: once more, without anybody who would try again.
log_keeper_state::~log_keeper_state() {
  if (!stored_) config_.pool->post([c = config_] { (void)store_log(*c.blobs, c.file, c.keys); });
}

log_keeper_actor::behavior_type log_keeper_state::make_behavior() {
  self_->doing("storing " + config_.file.filename().string());
  store();
  return {
      [this](atom::stored_atom, const caf::error& e) { on_stored(e); },
      [this](atom::tick_atom) { store(); },
  };
}

void log_keeper_state::store() {
  auto told = [me = self_->incarnation()](caf::error e) { caf::anon_send(me, atom::stored_v, std::move(e)); };
  const bool posted = rt::post_and_send(
      *config_.pool, [c = config_] { return store_log(*c.blobs, c.file, c.keys); },
      [told](const expected<void>& done) { told(done ? caf::error{} : make_error(done.error())); },
      [told](const std::string& what) { told(make_error(ec::crashed, what)); });
  if (!posted) told(make_error(ec::overloaded, "the pool is full"));
}

void log_keeper_state::on_stored(const caf::error& e) {
  if (auto worker = std::exchange(worker_, {})) self_->send(worker, atom::done_v, number_, e);
  if (!e) {
    stored_ = true;
    return self_->quit();
  }
  const auto why = to_string(from_caf(e));
  rt::log::warn("LOG_KEEPER", "log not stored, tried again file={} in_ms={} error={}", config_.file.string(),
                delay_.count(), why);
  self_->doing("waiting " + std::to_string(std::chrono::ceil<std::chrono::seconds>(delay_).count()) + " s to store " +
               config_.file.filename().string() + " again: " + why);
  self_->later(delay_, atom::tick_v);
  delay_ = std::min(delay_ * 2, config_.retry_max);
}

} // namespace coppice::actors
