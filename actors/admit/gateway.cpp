#include "actors/admit/gateway.hpp"

#include "actors/ask.hpp"
#include "actors/settings.hpp"
#include "runtime/log.hpp"

#include <set>

namespace coppice::actors {
namespace {

/// Relays the error of a request that was made for somebody.
template <class T>
auto relay(rt::reply<T> out) {
  return [out](caf::error& e) { out.deliver(std::move(e)); };
}
template <class T>
auto relay_error(rt::reply<T> out) {
  return [out](const error& e) { out.deliver(make_error(e)); };
}

request_summary summary_of(const ledger::request_row& row) {
  request_summary s{row.id, row.state, row.client, {}, row.submitted_ms, row.body.priority, row.result, row.number};
  for (auto& root : row.body.roots) s.roots.push_back(root.drv);
  return s;
}

std::string log_page(const ledger::attempt_row& row) {
  return "/attempt/" + row.key.to_string() + "-" + std::to_string(row.token.value);
}

} // namespace

gateway_state::gateway_state(rt::self<interface>* self, config c, peers p)
  : self_(self), config_(std::move(c)), peers_(std::move(p)) {}

gateway_state::interface::behavior_type gateway_state::make_behavior() {
  self_->later(config_.tick, atom::tick_v);
  return {
    [this](atom::info_atom, const caller&, const get_info&) { return info(); },
    [this](atom::missing_atom, const caller& who, find_missing& q) { return find(who, q); },
    [this](atom::submit_atom, const caller& who, submit_request& s) { return submit(who, s); },
    [this](atom::poll_atom, const caller&, const poll_request& p) { return poll(p); },
    [this](atom::status_atom, const caller&, const get_requests& q) { return status(q); },
    [this](atom::cancel_atom, const caller& who, const cancel_request& c) { return cancel(who, c); },
    [this](atom::log_atom, const caller&, const find_log& q) { return log(q); },
    [this](atom::output_atom) {
      for (auto& [x, out] : std::exchange(early_, {})) out.deliver(std::move(x));
    },
    [this](atom::tick_atom) {
      tick();
      self_->later(config_.tick, atom::tick_v);
    },
  };
}

caf::result<node_info> gateway_state::info() {
  rt::reply<node_info> out{self_};
  self_->call(peers_.cache, atom::get_v)
    .then(
      [this, out](const std::string& url) {
        auto me = config_.me;
        me.http = url;
        out.deliver(std::move(me));
      },
      relay(out));
  return out;
}

caf::result<missing> gateway_state::find(const caller& who, find_missing& q) {
  rt::reply<missing> out{self_};
  transact<ledger::path_infos>(
    self_, peers_.ledger, ledger::read_paths{q.sources},
    [this, who, q, out](ledger::path_infos& known) {
      std::set<nix::store_path> absent(q.sources.begin(), q.sources.end());
      for (auto& info : known.rows) absent.erase(info.path);
      missing found;
      found.sources.assign(absent.begin(), absent.end());
      find_closure(who, q.closure, std::move(found), out);
    },
    relay_error(out));
  return out;
}

void gateway_state::find_closure(const caller& who, blob_id closure, missing found, rt::reply<missing> out) {
  transact<ledger::blob_state>(
    self_, peers_.ledger, ledger::stat_blob{closure},
    [this, who, found, out](ledger::blob_state& blob) mutable {
      found.closure = !blob.present;
      if (found.sources.empty() && !found.closure) return out.deliver(std::move(found));
      self_->call(peers_.cache, atom::open_v, who)
        .then(
          [this, found, out](std::string& ticket) mutable {
            found.ticket = std::move(ticket);
            self_->call(peers_.cache, atom::get_v)
              .then(
                [found, out](const std::string& url) mutable {
                  found.upload_url = url + "/upload";
                  out.deliver(std::move(found));
                },
                relay(out));
          },
          relay(out));
    },
    relay_error(out));
}

caf::result<accepted> gateway_state::submit(const caller& who, submit_request& s) {
  rt::reply<accepted> out{self_};
  auto store = [this, out, who](const submit_request& x) {
    transact<ledger::request_row>(
      self_, peers_.ledger, ledger::submit{x.id, who.name, x.body},
      [this, out, who](ledger::request_row& row) {
        rt::log::info("GATEWAY", "request accepted id={} client={} roots={}", row.id.to_string(), who.name,
                      row.body.roots.size());
        if (row.state == request_state::open) self_->send(peers_.keeper, atom::open_v, row.id);
        if (row.body.when_client_leaves == on_disconnect::cancel && leaving_.size() < config_.clients_max)
          leaving_[row.id] = {row.client, config_.clock->now()};
        out.deliver(accepted{row.id, row.state});
      },
      relay_error(out));
  };
  // INV-6: accepted follows the presence of the derivations
  transact<ledger::blob_state>(
    self_, peers_.ledger, ledger::stat_blob{s.body.closure},
    [out, store, s](ledger::blob_state& blob) {
      if (blob.present) return store(s);
      out.fail(ec::missing, "the closure " + s.body.closure.to_string() + " was not uploaded; ask `missing` for a ticket");
    },
    relay_error(out));
  return out;
}

caf::result<request_progress> gateway_state::poll(const poll_request& p) {
  rt::reply<request_progress> out{self_};
  // one that does not wait only looks: an operator's list of requests keeps none of them alive
  if (auto c = leaving_.find(p.id); p.wait_ms > 0 && c != leaving_.end()) c->second.heard = config_.clock->now();
  self_->call(peers_.keeper, atom::find_v, p.id)
    .then(
      [this, p, out](const graph_actor& graph) {
        self_->call(graph, atom::poll_v, p)
          .then(
            [this, out](request_progress& x) {
              if (x.result) leaving_.erase(x.id);
              out.deliver(std::move(x));
            },
                [this, p, out](caf::error&) { poll_row(p, out); });
      },
      [this, p, out](caf::error&) { poll_row(p, out); });
  return out;
}

void gateway_state::poll_row(const poll_request& p, rt::reply<request_progress> out) {
  transact<ledger::request_rows>(
    self_, peers_.ledger, ledger::read_requests{p.id, 1},
    [this, p, out](ledger::request_rows& rows) {
      if (rows.rows.empty()) return out.fail(ec::not_found, "no request " + p.id.to_string() + " is known here");
      request_progress x;
      x.id = p.id;
      x.state = rows.rows[0].state;
      x.result = rows.rows[0].result;
      if (x.result) {
        x.counts.built = x.result->built;
        x.counts.reused = x.result->reused;
      }
      if (x.result || p.wait_ms == 0) return out.deliver(std::move(x));
      early_.emplace_back(std::move(x), out); // a graph is on its way
      self_->later(poll_pause, atom::output_v);
    },
    relay_error(out));
}

caf::result<request_summaries> gateway_state::status(const get_requests& q) {
  rt::reply<request_summaries> out{self_};
  transact<ledger::request_rows>(
    self_, peers_.ledger, ledger::read_requests{q.id, q.limit, q.open_limit, q.open_after, q.ended_before},
    [q, out](ledger::request_rows& rows) {
      if (!q.id.empty() && rows.rows.empty())
        return out.fail(ec::not_found, "no request " + q.id.to_string() + " is known here");
      request_summaries s;
      for (auto& row : rows.rows) s.rows.push_back(summary_of(row));
      out.deliver(std::move(s));
    },
    relay_error(out));
  return out;
}

caf::result<accepted> gateway_state::cancel(const caller& who, const cancel_request& c) {
  rt::reply<accepted> out{self_};
  transact<ledger::request_row>(
    self_, peers_.ledger, ledger::cancel{c.id, who.role >= role::admin ? std::string{} : who.name, c.let_finish},
    [this, out, who](ledger::request_row& row) {
      rt::log::info("GATEWAY", "request cancelled id={} by={} state={}", row.id.to_string(), who.name,
                    to_string(row.state));
      leaving_.erase(row.id);
      out.deliver(accepted{row.id, row.state});
    },
    relay_error(out));
  return out;
}

caf::result<log_place> gateway_state::log(const find_log& q) {
  rt::reply<log_place> out{self_};
  ledger::read_attempts read;
  read.key = q.key;
  read.drv = q.drv;
  transact<ledger::attempt_rows>(
    self_, peers_.ledger, read,
    [this, q, out](ledger::attempt_rows& attempts) {
      for (auto& row : attempts.rows) {
        if (!q.drv && q.token.value != 0 && row.token != q.token) continue;
        return place_log(row, out);
      }
      out.fail(ec::not_found, "no attempt to build " + (q.drv ? q.drv->to_string() : q.key.to_string()) + " is known");
    },
    relay_error(out));
  return out;
}

// A log is where its builder runs until the attempt ended, then in the farm's store.
void gateway_state::place_log(const ledger::attempt_row& row, rt::reply<log_place> out) {
  if (row.ended_ms || row.node == config_.me.node || !config_.cache_of) return place_log_here(row, out);
  self_->call(config_.cache_of(row.node), atom::open_v, get_ticket{})
    .then(
      [this, row, out](const upload_ticket& there) {
        is_for_others(there.url) ? out.deliver(log_place{row, there.url + log_page(row)}) : place_log_here(row, out);
      },
      [this, row, out](caf::error&) {
        // ignored: it is here as soon as the attempt ended
        place_log_here(row, out);
      });
}

void gateway_state::place_log_here(const ledger::attempt_row& row, rt::reply<log_place> out) {
  self_->call(peers_.cache, atom::get_v)
    .then([row, out](const std::string& url) { out.deliver(log_place{row, url + log_page(row)}); }, relay(out));
}

void gateway_state::tick() {
  if (!remembered_) remember_clients();
  auto now = config_.clock->now();
  for (auto& [request, who] : leaving_) {
    if (now - who.heard < config_.client_grace) continue;
    rt::log::info("GATEWAY", "client gone, request cancelled id={}", request.to_string());
    transact<ledger::request_row>(
      self_, peers_.ledger, ledger::cancel{request, who.name},
      [this, id = request](ledger::request_row&) { leaving_.erase(id); },
      [](const error& e) {
        rt::log::warn("GATEWAY", "request of a gone client not cancelled, tried again error={}", to_string(e));
      });
  }
}

void gateway_state::remember_clients() {
  transact<ledger::request_rows>(
    self_, peers_.ledger, ledger::read_requests{{}, 0},
    [this](ledger::request_rows& open) {
      remembered_ = true;
      for (auto& row : open.rows)
        if (row.body.when_client_leaves == on_disconnect::cancel && leaving_.size() < config_.clients_max)
          leaving_.try_emplace(row.id, client{row.client, config_.clock->now()});
    },
    [](const error&) {
      // ignored: the next tick reads them
    });
}

} // namespace coppice::actors
