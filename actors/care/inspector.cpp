#include "actors/care/inspector.hpp"

#include "actors/ask.hpp"
#include "runtime/log.hpp"
#include "store/pack.hpp"

#include <fmt/chrono.h>

#include <algorithm>
#include <iterator>
#include <tuple>

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
      [this](atom::retry_atom, const caller&, const retry_partial& o) { return order(atom::retry_v, o.node, o); },
      [this](atom::drop_atom, const caller& who, const drop_partial& o) {
        rt::log::warn("INSPECTOR", "outputs to be dropped key={} token={} node={} by={}", o.key.to_string(),
                      o.token.value, o.node.value, who.name);
        return order(atom::drop_v, o.node, o);
      },
      [this](atom::gone_atom, const caller& who, const mark_gone& order) { return forget(who, order.path); },
      [this](atom::explain_atom, const caller&, const explain_query& q) { return explain(q); },
      [this](atom::tick_atom, std::uint64_t id) { finish_roll(id); },
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
  rt::log::warn("INSPECTOR", "machine {} node={} by={} why={}", order.drained ? "drained" : "undrained",
                order.node.value, who.name, order.why);
  const auto now = std::chrono::floor<std::chrono::seconds>(config_.clock->wall_now());
  order.why = fmt::format("{}{}by {}, {:%Y-%m-%d %H:%M:%S} UTC", order.why, order.why.empty() ? "" : " - ", who.name,
                          fmt::gmtime(now));
  return this->order(atom::drain_v, order.node, order);
}

expected<machine_actor> inspector_state::machine_of(const node_id& node) const {
  if (node.empty() || node == config_.node) return machine_actor{peers_.pool};
  if (!config_.machine_of) return fail(ec::not_found, "this is " + config_.node.value + ", which has no other machines");
  return config_.machine_of(node);
}

template <class Atom, class Order>
caf::result<ledger::done> inspector_state::order(Atom verb, const node_id& node, const Order& what) {
  rt::reply<ledger::done> out{self_};
  auto to = machine_of(node);
  if (!to) {
    out.deliver(make_error(to.error()));
    return out;
  }
  self_->call(*to, verb, what)
      .then([out](ledger::done&) { out.deliver(ledger::done{}); },
            [out, node](caf::error& e) {
              if (!is(e, ec::peer_down)) return out.deliver(std::move(e));
              out.fail(ec::not_found, node.value + " is not connected; `coppice-admin nodes` shows who is");
            });
  return out;
}

// The hub's own comes first and does not wait for who is away: those are named.
caf::result<partial_outputs> inspector_state::list_partials(const get_partials& q) {
  rt::reply<partial_outputs> out{self_};
  self_->call(peers_.allocator, atom::nodes_v, get_nodes{})
      .then(
          [this, q, out](node_statuses& nodes) {
            const auto id = ++works_;
            auto& r = rolls_.emplace(id, roll{{config_.node}, {}, q.limit, out}).first->second;
            if (config_.machine_of)
              for (auto& row : nodes.rows)
                r.silent.insert(row.what.node);
            for (auto& node : std::set<node_id>{r.silent})
              ask_partials(id, node, q);
            self_->later(config_.answer_within, atom::tick_v, id);
          },
          [out](caf::error& e) { out.deliver(std::move(e)); });
  return out;
}

void inspector_state::ask_partials(std::uint64_t id, const node_id& node, const get_partials& q) {
  const auto answered = [this, id, node](const error& why) {
    auto r = rolls_.find(id);
    if (r == rolls_.end()) return; // it was not waited for any longer
    r->second.silent.erase(node);
    if (why.code != ec::none) r->second.found.silent.push_back({node, why.what});
    if (r->second.silent.empty()) finish_roll(id);
  };
  self_->call(*machine_of(node), atom::partials_v, q)
      .then(
          [this, id, answered](partial_outputs& some) {
            if (auto r = rolls_.find(id); r != rolls_.end())
              std::move(some.rows.begin(), some.rows.end(), std::back_inserter(r->second.found.rows));
            answered({});
          },
          [answered](caf::error& e) { answered(from_caf(e)); });
}

void inspector_state::finish_roll(std::uint64_t id) {
  auto ended = rolls_.extract(id);
  if (ended.empty()) return;
  auto& r = ended.mapped();
  for (auto& node : r.silent)
    r.found.silent.push_back({node, "does not answer"});
  auto& rows = r.found.rows;
  std::sort(rows.begin(), rows.end(), [](auto& a, auto& b) { return std::tie(a.key, a.node) < std::tie(b.key, b.node); });
  if (rows.size() > r.rows_max) rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(r.rows_max), rows.end());
  add_tokens(r.found, r.out);
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
