#include "actors/ask.hpp"
#include "actors/build/worker_pool.hpp"
#include "runtime/log.hpp"

/// What operators order WORKER_POOL to do.
namespace coppice::actors {

// The mark on the disk is what counts: a WORKER_POOL that dies before it answers finds it at its next measurement.
caf::result<ledger::done> worker_pool_state::drain(const drain_node& order) {
  rt::reply<ledger::done> out{self_};
  if (!order.node.empty() && order.node != config_.worker.node) {
    out.fail(ec::not_found, "this is " + config_.worker.node.value + ", not " + order.node.value);
    return out;
  }
  const auto id = ++orders_;
  drains_.emplace(id, out);
  auto told = [me = self_->incarnation(), id](machine_room now, caf::error e) {
    caf::anon_send(me, atom::drain_v, id, std::move(now), std::move(e));
  };
  const bool posted = rt::post_and_send(
      *config_.worker.watch_pool,
      [disks = config_.disks, mark = config_.drain_mark, order]() -> expected<machine_room> {
        if (auto done = set_drain_mark(mark, order.drained, order.why); !done) return tl::unexpected(done.error());
        return measure_room(disks, mark);
      },
      [told](expected<machine_room> r) { r ? told(*r, {}) : told({}, make_error(r.error())); },
      [told](const std::string& what) { told({}, make_error(ec::crashed, what)); });
  if (!posted) told({}, make_error(ec::overloaded, "the pool is full"));
  return out;
}

void worker_pool_state::on_drained(std::uint64_t order, const machine_room& now, const caf::error& e) {
  auto found = drains_.extract(order);
  if (found.empty()) return;
  if (e) return found.mapped().deliver(e);
  take_measure(now);
  found.mapped().deliver(ledger::done{});
}

caf::result<ledger::done> worker_pool_state::stop() {
  rt::reply<ledger::done> out{self_};
  stops_.push_back(out);
  stopping_ = true;
  for (auto& [key, o] : slots_)
    stop(o);
  offer_soon();
  return out;
}

void worker_pool_state::stop(const occupant& o) {
  if (!o.worker || !o.counts) return;
  self_->send(caf::actor_cast<worker_actor>(caf::actor_cast<caf::strong_actor_ptr>(o.worker)), atom::stop_v,
              "its machine, " + config_.worker.node.value + ", was stopped");
}

void worker_pool_state::answer_stops() {
  if (busy_[false] + busy_[true] > 0) return;
  for (auto& out : std::exchange(stops_, {}))
    out.deliver(ledger::done{});
}

caf::result<partial_outputs> worker_pool_state::list_partials(const get_partials& q) {
  rt::reply<partial_outputs> out{self_};
  const auto id = ++orders_;
  listings_.emplace(id, out);
  auto told = [me = self_->incarnation(), id](partial_outputs found, caf::error e) {
    caf::anon_send(me, atom::partials_v, id, std::move(found), std::move(e));
  };
  const bool posted = rt::post_and_send(
      *config_.worker.watch_pool,
      [kept = config_.worker.kept, node = config_.worker.node, url = config_.http_url, q]() -> expected<partial_outputs> {
        auto listing = kept->list();
        if (!listing) return tl::unexpected(listing.error());
        partial_outputs all;
        for (auto& entry : listing->entries) {
          if (entry.key <= q.after) continue;
          if (all.rows.size() == q.limit) break;
          partial_output p{entry.key, entry.token, entry.drv, node, {}, 0, {}, {}, url};
          for (auto& o : entry.outputs) {
            p.outputs.push_back(o.info.path);
            p.kept.push_back({o.info.path, o.info.nar_hash, o.info.nar_size});
            p.nar_bytes += o.info.nar_size;
          }
          all.rows.push_back(std::move(p));
        }
        return all;
      },
      [told](expected<partial_outputs> r) { r ? told(std::move(*r), {}) : told({}, make_error(r.error())); },
      [told](const std::string& what) { told({}, make_error(ec::crashed, what)); });
  if (!posted) told({}, make_error(ec::overloaded, "the pool is full"));
  return out;
}

void worker_pool_state::on_listed(std::uint64_t question, partial_outputs& found, const caf::error& e) {
  auto asked = listings_.extract(question);
  if (asked.empty()) return;
  if (e) return asked.mapped().deliver(e);
  std::map<std::string, std::string> doing;
  if (!found.rows.empty())
    for (auto& actor : config_.directory->describe())
      if (actor.path.starts_with(config_.uploads_path + "/")) doing.emplace(actor.path, actor.doing);
  for (auto& row : found.rows)
    if (auto upload = doing.find(upload_path(row.key)); upload != doing.end()) row.doing = upload->second;
  asked.mapped().deliver(std::move(found));
}

std::string worker_pool_state::upload_path(const inhash& key) const {
  auto found = slots_.find(key);
  if (found == slots_.end() || !found->second.worker) return {};
  auto path = rt::as_ref(caf::actor_cast<caf::strong_actor_ptr>(found->second.worker)).path();
  return config_.uploads_path + path.substr(path.rfind('/'));
}

caf::result<ledger::done> worker_pool_state::retry_partial_now(const inhash& key) {
  if (auto uploader = config_.directory->find(upload_path(key))) {
    self_->send(caf::actor_cast<store_uploader_actor>(uploader), atom::retry_v);
    return ledger::done{};
  }
  return make_error(ec::not_found, "no upload of " + key.to_string() + " waits on " + config_.worker.node.value);
}

caf::result<ledger::done> worker_pool_state::drop(const drop_partial& order) {
  rt::reply<ledger::done> out{self_};
  auto found = slots_.find(order.key);
  if (found == slots_.end() || !found->second.worker) {
    out.fail(ec::not_found, "no outputs of " + order.key.to_string() + " are kept on " + config_.worker.node.value);
    return out;
  }
  auto worker = caf::actor_cast<worker_actor>(caf::actor_cast<caf::strong_actor_ptr>(found->second.worker));
  self_->call(worker, atom::drop_v, order.token)
      .then([out](ledger::done&) { out.deliver(ledger::done{}); }, [out](caf::error& e) { out.deliver(std::move(e)); });
  return out;
}

} // namespace coppice::actors
