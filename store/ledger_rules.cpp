#include "store/ledger_rules.hpp"

#include <algorithm>
#include <iterator>

namespace coppice::store {

void ledger_changes::absorb(ledger_changes&& later) {
  for (auto& [key, row] : later.locks)
    locks.insert_or_assign(key, std::move(row));
  requests.merge(later.requests);
  outbox = outbox || later.outbox;
  std::move(later.events.begin(), later.events.end(), std::back_inserter(events));
}

void ledger_changes::append_to(ledger::changed& out) {
  for (auto& [key, row] : locks)
    out.locks.push_back(std::move(row));
  out.requests.insert(out.requests.end(), requests.begin(), requests.end());
  out.outbox = out.outbox || outbox;
  std::move(events.begin(), events.end(), std::back_inserter(out.events));
  *this = {};
}

std::string describe(const ledger::lock_state& row) {
  std::string text{to_string(row.phase)};
  if (!row.node.empty()) text += " on " + row.node.value;
  return text + " under token " + std::to_string(row.token.value);
}

bool has_just_failed(const ledger::lock_state& row) {
  return row.failed && row.failed->token == row.token;
}

bool is_held(const ledger::lock_state& row) {
  return row.phase == ledger::phase::queued || row.phase == ledger::phase::building ||
         row.phase == ledger::phase::partial;
}

ledger_rules::answer ledger_rules::apply(const ledger::any_transaction& t) {
  return std::visit([this](const auto& x) { return on(x); }, t);
}

farm_event& ledger_rules::tell(event_kind kind) {
  changes_.events.emplace_back();
  changes_.events.back().kind = kind;
  return changes_.events.back();
}

farm_event& ledger_rules::tell(event_kind kind, const ledger::lock_state& row) {
  auto& e = tell(kind);
  e.drv = row.drv;
  e.key = row.key;
  e.token = row.token;
  e.node = row.node;
  return e;
}

expected<void> ledger_rules::require_live(const session_id& session, const char* what) {
  auto row = rows_.find_session(session);
  if (row && !row->over) return {};
  return fail(ec::session_over, std::string("cannot ") + what + ": session " + session.to_string() +
                                    (row ? " of " + row->node.value + " is over" : " is not open"));
}

expected<request_head> ledger_rules::require_epoch(const request_id& id, epoch e, const char* what) {
  auto row = rows_.find_request(id);
  auto text = std::string("cannot ") + what + " for request " + id.to_string();
  if (!row) return fail(ec::not_found, text + ": it is not known");
  if (row->state != request_state::open)
    return fail(ec::not_owner, text + ": it is over, " + std::string(to_string(row->state)));
  text += " in epoch " + std::to_string(e.value) + ": it is in epoch " + std::to_string(row->epoch.value);
  if (e > row->epoch) return fail(ec::ledger_regressed, text + "; was the ledger restored from a backup?");
  if (e != row->epoch) return fail(ec::not_owner, text);
  return *row;
}

// T1
ledger_rules::answer ledger_rules::on(const ledger::open_session& t) {
  if (t.node.empty() || t.session.empty()) return fail(ec::invalid, "a session needs a node's name and an id");
  auto stored = rows_.find_session_of(t.node);
  session_row opened{t.node, t.incarnation, t.session, false, now_ms_, t.url};
  if (stored && stored->session == t.session && stored->incarnation == t.incarnation) {
    if (stored->over) rows_.put_session(opened); // its locks stay lost
    return ledger::done{};
  }
  if (stored && t.incarnation <= stored->incarnation)
    return fail(ec::session_over, "cannot open a session of " + t.node.value + " in incarnation " +
                                      std::to_string(t.incarnation.value) + ": it is in incarnation " +
                                      std::to_string(stored->incarnation.value));
  if (auto other = rows_.find_session(t.session); other && other->node != t.node)
    return fail(ec::conflict, "session " + t.session.to_string() + " is the one of " + other->node.value);
  if (stored) end_session(stored->session, "its node started again");
  rows_.put_session(opened);
  return ledger::done{};
}

// T2
ledger_rules::answer ledger_rules::on(const ledger::keep_alive& t) {
  if (auto live = require_live(t.session, "renew the lease"); !live) return tl::unexpected(live.error());
  return ledger::done{};
}

// T18
ledger_rules::answer ledger_rules::on(const ledger::expire& t) {
  auto row = rows_.find_session(t.session);
  if (!row || row->over) return ledger::done{};
  row->over = true;
  rows_.put_session(*row);
  end_session(t.session, "its node was not heard of for too long");
  return ledger::done{};
}

void ledger_rules::end_session(const session_id& session, const char* reason) {
  const ledger::held_locks chunk{session, ledger_chunk_rows};
  for (auto held = rows_.held_locks(chunk); !held.empty(); held = rows_.held_locks(chunk))
    for (auto& row : held)
      let_go(std::move(row), failure::infra, reason);
  for (auto owned = rows_.requests_owned_by(session, ledger_chunk_rows); !owned.empty();
       owned = rows_.requests_owned_by(session, ledger_chunk_rows))
    for (auto& request : owned) {
      rows_.put_owner(request.id, {}, request.epoch);
      changes_.requests.insert(request.id);
    }
}

// T3
ledger_rules::answer ledger_rules::on(const ledger::submit& t) {
  if (t.id.empty()) return fail(ec::invalid, "a request needs an id");
  if (auto stored = rows_.read_request(t.id)) {
    if (stored->client == t.client && stored->body == t.body) return *std::move(stored);
    return fail(ec::conflict, "request " + t.id.to_string() + " was submitted " +
                                  (stored->client == t.client ? "with another body" : "by another client"));
  }
  // INV-6: GATEWAY has seen it, but nothing pinned it until now
  if (auto closure = rows_.find_blob(t.body.closure); closure && !closure->present)
    return fail(ec::missing, "the closure " + t.body.closure.to_string() + " of request " + t.id.to_string() +
                                 " was collected meanwhile; ask `missing` for a ticket");
  ledger::request_row row;
  row.id = t.id;
  row.client = t.client;
  row.body = t.body;
  row.number = rows_.last_request_number() + 1;
  row.submitted_ms = now_ms_;
  rows_.add_request(row);
  changes_.requests.insert(t.id);
  auto& e = tell(event_kind::request_accepted);
  e.request = t.id;
  e.count = t.body.roots.size();
  e.text = t.client;
  return row;
}

// T4
ledger_rules::answer ledger_rules::on(const ledger::adopt& t) {
  if (auto live = require_live(t.session, "adopt a request"); !live) return tl::unexpected(live.error());
  auto row = rows_.find_request(t.id);
  if (!row) return fail(ec::not_found, "cannot adopt request " + t.id.to_string() + ": it is not known");
  if (row->state != request_state::open)
    return fail(ec::conflict,
                "cannot adopt request " + t.id.to_string() + ": it is over, " + std::string(to_string(row->state)));
  if (row->owner == t.session) return ledger::owned{row->epoch};
  if (auto owner = rows_.find_session(row->owner); owner && !owner->over)
    return fail(ec::not_owner, "cannot adopt request " + t.id.to_string() + ": " + owner->node.value + " owns it");
  ++row->epoch.value;
  rows_.put_owner(t.id, t.session, row->epoch);
  changes_.requests.insert(t.id);
  return ledger::owned{row->epoch};
}

// T14
ledger_rules::answer ledger_rules::on(const ledger::finish& t) {
  auto stored = rows_.read_request(t.id);
  if (stored && stored->state != request_state::open) return *std::move(stored); // INV-5
  if (auto head = require_epoch(t.id, t.epoch, "tell the result"); !head) return tl::unexpected(head.error());
  if (t.result.state == request_state::open)
    return fail(ec::invalid, "cannot finish request " + t.id.to_string() + " with a result that says it is open");
  if (t.result.state == request_state::succeeded) {
    if (stored->body.roots.size() > 0 && t.roots.empty())
      return fail(ec::invalid, "cannot finish request " + t.id.to_string() + ": a success must name its roots");
    if (auto borne_out = require_roots(t); !borne_out) return tl::unexpected(borne_out.error());
  }
  end_request(*stored, t.result);
  stored->state = t.result.state;
  stored->result = t.result;
  return *std::move(stored);
}

expected<void> ledger_rules::require_roots(const ledger::finish& t) { // INV-3
  const auto no = [&t](const std::string& why) {
    return fail(ec::invalid, "request " + t.id.to_string() + " has not succeeded: " + why);
  };
  if (t.result.roots.size() != t.roots.size())
    return no("it claims " + std::to_string(t.roots.size()) + " roots and tells of " +
              std::to_string(t.result.roots.size()));
  for (std::size_t i = 0; i < t.roots.size(); ++i) {
    const auto& root = t.roots[i];
    const auto row = lock(root);
    if (row.phase != ledger::phase::realised) return no(root.to_string() + " is " + describe(row));
    if (!row.published) return no(root.to_string() + " is " + describe(row) + " and not published");
    // what was retired since it was seen may have been made anew, with other bytes
    if (row.outputs != t.result.roots[i].outputs) return no(root.to_string() + " has other outputs by now");
  }
  return {};
}

// T15
ledger_rules::answer ledger_rules::on(const ledger::cancel& t) {
  auto row = rows_.read_request(t.id);
  if (!row) return fail(ec::not_found, "cannot cancel request " + t.id.to_string() + ": it is not known");
  if (!t.client.empty() && t.client != row->client)
    return fail(ec::forbidden, "request " + t.id.to_string() + " was submitted by another client");
  if (row->state != request_state::open) return *std::move(row); // INV-5
  inhash last;
  for (auto keys = rows_.held_only_for(t.id, last, ledger_chunk_rows); !keys.empty();
       last = keys.back(), keys = rows_.held_only_for(t.id, last, ledger_chunk_rows))
    for (auto& key : keys) {
      auto held = lock(key);
      if (t.let_finish && held.phase != ledger::phase::queued) continue;
      auto freed = let_go(std::move(held), failure::cancelled, "its request was cancelled");
      ++freed.token.value; // nothing that its holder still says counts
      save(freed);
    }
  request_result result;
  result.state = request_state::cancelled;
  result.reason = t.client.empty() ? "cancelled by an admin" : "cancelled by its client";
  for (auto& root : row->body.roots)
    result.roots.push_back({root.drv, {}, failure::cancelled});
  end_request(*row, result);
  row->state = result.state;
  row->result = std::move(result);
  return *std::move(row);
}

void ledger_rules::end_request(const ledger::request_row& before, const request_result& result) {
  rows_.put_result(before.id, result);
  rows_.drop_interest(before.id);
  changes_.requests.insert(before.id);
  auto& e = tell(event_kind::request_ended);
  e.request = before.id;
  e.outcome = result.state;
  e.duration_ms = std::max<std::int64_t>(now_ms_ - before.submitted_ms, 0);
  e.count = result.built;
  e.text = result.reason;
}

} // namespace coppice::store
