#include "actors/care/inspector.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"
#include "store/pack.hpp"

#include <fmt/chrono.h>

namespace coppice::actors {

inspector_state::inspector_state(rt::self<interface>* self, config c, peers p)
    : self_(self), config_(std::move(c)), peers_(std::move(p)) {}

inspector_state::interface::behavior_type inspector_state::make_behavior() {
  return {
      [this](atom::queue_atom, const caller&, const get_queue& q) {
        return relay<job_queue>(peers_.allocator, atom::queue_v, q);
      },
      [this](atom::nodes_atom, const caller&, const get_nodes& q) {
        return relay<node_statuses>(peers_.allocator, atom::nodes_v, q);
      },
      [this](atom::drain_atom, const caller& who, drain_node& order) { return drain(who, order); },
      [this](atom::partials_atom, const caller&, const get_partials& q) { return list_partials(q); },
      [this](atom::retry_atom, const caller&, const retry_partial& order) {
        return relay<ledger::done>(peers_.pool, atom::retry_v, order);
      },
      [this](atom::drop_atom, const caller& who, const drop_partial& order) {
        rt::log::warn("INSPECTOR", "outputs to be dropped key={} token={} by={}", order.key.to_string(),
                      order.token.value, who.name);
        return relay<ledger::done>(peers_.pool, atom::drop_v, order);
      },
      [this](atom::gone_atom, const caller& who, const mark_gone& order) { return forget(who, order.path); },
      [this](atom::explain_atom, const caller&, const explain_query& q) { return explain(q); },
      [this](atom::done_atom, std::uint64_t id, const caf::error& e) {
        auto work = under_way_.extract(id);
        if (!work.empty()) work.mapped()(e);
      },
  };
}

template <class Reply, class Handle, class... Ts>
caf::result<Reply> inspector_state::relay(const Handle& to, Ts&&... xs) {
  rt::reply<Reply> out{self_};
  self_->call(to, std::forward<Ts>(xs)...)
      .then([out](Reply& x) { out.deliver(std::move(x)); }, [out](caf::error& e) { out.deliver(std::move(e)); });
  return out;
}

caf::result<ledger::done> inspector_state::drain(const caller& who, drain_node& order) {
  rt::log::warn("INSPECTOR", "machine {} by={} why={}", order.drained ? "drained" : "undrained", who.name, order.why);
  const auto now = std::chrono::floor<std::chrono::seconds>(config_.clock->wall_now());
  order.why = fmt::format("{}{}by {}, {:%Y-%m-%d %H:%M:%S} UTC", order.why, order.why.empty() ? "" : " - ", who.name,
                          fmt::gmtime(now));
  return relay<ledger::done>(peers_.pool, atom::drain_v, order);
}

caf::result<partial_outputs> inspector_state::list_partials(const get_partials& q) {
  rt::reply<partial_outputs> out{self_};
  self_->call(peers_.pool, atom::partials_v, q)
      .then([this, out](partial_outputs& found) { add_tokens(found, out); },
            [out](caf::error& e) { out.deliver(std::move(e)); });
  return out;
}

// The journal has the token under which they were built; since then another one may have been drawn.
void inspector_state::add_tokens(partial_outputs& found, rt::reply<partial_outputs> out) {
  ledger::read_locks read;
  for (auto& row : found.rows)
    read.keys.push_back(row.key);
  transact<ledger::lock_states>(
      self_, peers_.ledger, std::move(read),
      [found = std::move(found), out](ledger::lock_states& locks) mutable {
        for (std::size_t i = 0; i < locks.rows.size() && i < found.rows.size(); ++i)
          found.rows[i].token = std::max(found.rows[i].token, locks.rows[i].token);
        out.deliver(std::move(found));
      },
      [out](const error& e) { out.deliver(make_error(e)); });
}

caf::result<path_info> inspector_state::forget(const caller& who, const nix::store_path& path) {
  rt::log::warn("INSPECTOR", "path marked as gone path={} by={}", path.to_string(), who.name);
  rt::reply<path_info> out{self_};
  transact<ledger::path_infos>(
      self_, peers_.ledger, ledger::read_paths{{path}},
      [this, path, out](ledger::path_infos& known) {
        if (known.rows.empty()) return out.fail(ec::not_found, path.to_string() + " is in no store of the farm");
        remove_and_forget(known.rows.front(), out);
      },
      [out](const error& e) { out.deliver(make_error(e)); });
  return out;
}

// What is left of it is taken away before the ledger hears of it, or it might be what replaced it. Its narinfo may stay:
// CACHE_SERVER gives none out whose NAR is not there.
void inspector_state::remove_and_forget(const path_info& info, rt::reply<path_info> out) {
  auto done = [this, info, out] {
    transact<ledger::done>(
        self_, peers_.ledger, ledger::gone{info.blob, info.gen}, [info, out](ledger::done&) { out.deliver(info); },
        [out](const error& e) { out.deliver(make_error(e)); });
  };
  auto work = [blobs = config_.blobs, nar = store::nar_key(info.blob, info.gen)] { return blobs->remove(nar); };
  auto told = [me = self_->incarnation()](std::uint64_t id, caf::error e) {
    caf::anon_send(me, atom::done_v, id, std::move(e));
  };
  const auto id = ++works_;
  under_way_.emplace(id, [done, out](const caf::error& e) { e ? out.deliver(e) : done(); });
  const bool posted = rt::post_and_send(
      *config_.pool, work, [told, id](expected<void> r) { told(id, r ? caf::error{} : make_error(r.error())); },
      [told, id](const std::string& what) { told(id, make_error(ec::crashed, what)); });
  if (!posted) told(id, make_error(ec::overloaded, "the pool is full"));
}

} // namespace coppice::actors
