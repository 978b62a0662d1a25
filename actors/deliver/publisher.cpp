#include "actors/deliver/publisher.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"
#include "store/path_records.hpp"

namespace coppice::actors {

publisher_state::publisher_state(rt::self<interface>* self, config c, ledger_actor ledger)
    : self_(self), config_(std::move(c)), ledger_(std::move(ledger)) {}

publisher_state::interface::behavior_type publisher_state::make_behavior() {
  self_->send(self_->incarnation(), atom::tick_v);
  return {
      [this](atom::changed_atom, const ledger::changed& c) {
        for (auto& row : c.locks)
          if (row.phase == ledger::phase::realised && !row.published) publish(row);
      },
      [this](atom::tick_atom) {
        scan();
        self_->later(config_.scan_interval, atom::tick_v);
      },
      [this](atom::stored_atom, const ledger::lock_state& row, const caf::error& e) { on_stored(row, e); },
  };
}

void publisher_state::scan() {
  transact<ledger::lock_states>(
      self_, ledger_, ledger::outbox{config_.batch_max},
      [this](ledger::lock_states& rows) {
        for (auto& row : rows.rows)
          publish(row);
      },
      [](const error& e) { rt::log::warn("PUBLISHER", "outbox not read, tried again error={}", to_string(e)); });
}

void publisher_state::publish(const ledger::lock_state& row) {
  if (under_way_.contains(row.key)) return;
  if (under_way_.size() >= config_.batch_max) {
    left_over_ = true;
    return;
  }
  under_way_.insert(row.key);
  self_->doing("publishing " + std::string(row.drv.name()));
  auto work = [blobs = config_.blobs, key = config_.key, row]() -> expected<void> {
    std::vector<std::pair<std::string, std::string>> documents;
    for (auto& o : row.outputs) {
      auto info = store::to_narinfo(o.info);
      info.sigs.push_back(key->sign(info.fingerprint()));
      documents.emplace_back(store::narinfo_key(o.info.path), nix::print_narinfo(info));
    }
    return blobs->put_all(documents);
  };
  auto me = self_->incarnation();
  bool posted = rt::post_and_send(
      *config_.pool, work,
      [me, row](expected<void> done) {
        caf::anon_send(me, atom::stored_v, row, done ? caf::error{} : make_error(done.error()));
      },
      [me, row](const std::string& what) { caf::anon_send(me, atom::stored_v, row, make_error(ec::crashed, what)); });
  if (!posted) under_way_.erase(row.key); // the next scan finds it
}

void publisher_state::on_stored(const ledger::lock_state& row, const caf::error& e) {
  auto finished = [this, key = row.key] {
    under_way_.erase(key);
    if (left_over_ && under_way_.size() <= config_.batch_max / 2) {
      left_over_ = false;
      scan();
    }
  };
  if (e) {
    rt::log::warn("PUBLISHER", "not published, tried again drv={} error={}", row.drv.to_string(),
                  to_string(from_caf(e)));
    return finished();
  }
  transact<ledger::done>(
      self_, ledger_, ledger::published{row.key, row.outputs}, [finished](ledger::done&) { finished(); },
      [finished, drv = row.drv](const error& why) {
        rt::log::warn("PUBLISHER", "not marked as published, tried again drv={} error={}", drv.to_string(),
                      to_string(why));
        finished();
      });
}

} // namespace coppice::actors
