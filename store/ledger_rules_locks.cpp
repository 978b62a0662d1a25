#include "store/ledger_rules.hpp"

#include <algorithm>

namespace coppice::store {

namespace {

std::string cut(const std::string& text) {
  return text.substr(0, ledger_reason_bytes_max);
}

std::string tail(const std::string& log) {
  return log.size() <= log_tail_bytes_max ? log : log.substr(log.size() - log_tail_bytes_max);
}

std::vector<realised_output> sorted(std::vector<realised_output> outputs) {
  std::sort(outputs.begin(), outputs.end(), [](auto& a, auto& b) { return a.name < b.name; });
  return outputs;
}

tl::unexpected<error> stale(const char* what, const ledger::lock_state& row, fence token) {
  return fail(ec::stale, std::string("cannot ") + what + " " + row.key.to_string() + " with token " +
                             std::to_string(token.value) + ": it is " + describe(row));
}

} // namespace

ledger::lock_state ledger_rules::lock(const inhash& key) {
  if (auto row = rows_.find_lock(key)) return *std::move(row);
  ledger::lock_state none;
  none.key = key;
  return none;
}

expected<ledger::lock_state> ledger_rules::lock_for(const inhash& key, fence token, const char* what) {
  auto row = lock(key);
  if (token > row.token)
    return fail(ec::ledger_regressed, std::string("cannot ") + what + " " + key.to_string() + ": token " +
                                          std::to_string(token.value) + " was never handed out, the last one was " +
                                          std::to_string(row.token.value) + "; was the ledger restored from a backup?");
  return row;
}

void ledger_rules::save(const ledger::lock_state& row) {
  rows_.put_lock(row);
  changes_.locks.insert_or_assign(row.key, row);
}

void ledger_rules::hand_over(ledger::lock_state& row, ledger::phase phase, const holder& who, const node_id& node,
                             fence origin) {
  ++row.token.value; // INV-7
  row.phase = phase;
  row.holder = who;
  row.node = node;
  row.origin = origin;
}

void ledger_rules::set_failure(ledger::lock_state& row, std::optional<ledger::failure_record> failed) {
  row.failed = std::move(failed);
  rows_.put_failure(row.key, row.failed);
}

void ledger_rules::forget_failure(ledger::lock_state& row) {
  if (row.failed) set_failure(row, {});
  if (row.infra_deaths == 0) return;
  row.infra_deaths = 0;
  rows_.clear_death_nodes(row.key);
}

void ledger_rules::begin_attempt(const ledger::lock_state& row, std::string reason) {
  rows_.add_attempt({row.key, row.token, row.drv, row.node, now_ms_, {}, failure::none, std::move(reason)});
}

ledger::lock_state ledger_rules::let_go(ledger::lock_state row, failure why, const std::string& reason) {
  if (row.phase != ledger::phase::queued) {
    rows_.end_attempt(row.key, row.token, now_ms_, why, cut(reason));
    if (why == failure::infra) count_death(row, reason);
  }
  row.phase = ledger::phase::free;
  row.holder = {};
  row.node = {};
  row.origin = {};
  save(row);
  return row;
}

// INV-17
void ledger_rules::count_death(ledger::lock_state& row, const std::string& last) {
  ++row.infra_deaths;
  auto nodes = rows_.death_nodes(row.key);
  if (std::find(nodes.begin(), nodes.end(), row.node) == nodes.end()) {
    rows_.add_death_node(row.key, row.node);
    nodes.push_back(row.node);
  }
  if (nodes.size() < policy_.poison_max && row.infra_deaths < policy_.infra_deaths_max) return;
  std::sort(nodes.begin(), nodes.end());
  auto reason = std::to_string(row.infra_deaths) + " attempts ended with their worker or machine, on";
  for (auto& node : nodes)
    reason += " " + node.value;
  if (!last.empty()) reason += "; the last one: " + last;
  set_failure(row, ledger::failure_record{failure::poisoned, row.token, rows_.last_request_number(), cut(reason), {}});
}

// T5
ledger_rules::answer ledger_rules::on(const ledger::acquire& t) {
  if (t.key.empty()) return fail(ec::invalid, "an acquire without an inhash");
  if (auto live = require_live(t.who.session, "acquire a lock"); !live) return tl::unexpected(live.error());
  auto request = require_epoch(t.request, t.epoch, "acquire a lock");
  if (!request) return tl::unexpected(request.error());
  auto row = lock(t.key);
  bool mine = row.phase == ledger::phase::queued && row.holder == t.who;
  bool failed = row.failed && request->number <= row.failed->after;
  if (mine || failed || row.phase != ledger::phase::free) {
    rows_.add_interest(t.key, t.request);
    if (mine) return ledger::granted{row.token};
    return row;
  }
  if (row.failed) forget_failure(row);
  hand_over(row, ledger::phase::queued, t.who, {}, {});
  row.drv = t.drv;
  save(row);
  rows_.add_interest(t.key, t.request);
  return ledger::granted{row.token};
}

// T6
ledger_rules::answer ledger_rules::on(const ledger::start& t) {
  if (auto live = require_live(t.who.session, "start an attempt"); !live) return tl::unexpected(live.error());
  auto row = lock_for(t.key, t.token, "start");
  if (!row) return tl::unexpected(row.error());
  if (row->phase == ledger::phase::building && row->origin == t.token && row->holder == t.who)
    return ledger::granted{row->token};
  if (row->phase != ledger::phase::queued || row->token != t.token) return stale("start", *row, t.token);
  hand_over(*row, ledger::phase::building, t.who, t.node, t.token);
  save(*row);
  begin_attempt(*row, {});
  return ledger::granted{row->token};
}

// T7
ledger_rules::answer ledger_rules::on(const ledger::release& t) {
  if (t.why == failure::none) return fail(ec::invalid, "a release of " + t.key.to_string() + " needs a reason");
  auto row = lock_for(t.key, t.token, "release");
  if (!row) return tl::unexpected(row.error());
  if (is_held(*row) && row->token == t.token) let_go(*std::move(row), t.why, t.reason);
  return ledger::done{};
}

// T8
ledger_rules::answer ledger_rules::on(const ledger::partial& t) {
  auto row = lock_for(t.key, t.token, "keep the outputs of");
  if (!row) return tl::unexpected(row.error());
  bool current = row->token == t.token;
  if (current && row->phase == ledger::phase::partial) return ledger::done{};
  if (!current || row->phase != ledger::phase::building) return stale("keep the outputs of", *row, t.token);
  row->phase = ledger::phase::partial;
  save(*row);
  return ledger::done{};
}

// T9
ledger_rules::answer ledger_rules::on(const ledger::reclaim& t) {
  if (t.key.empty()) return fail(ec::invalid, "a reclaim without an inhash");
  if (auto live = require_live(t.who.session, "reclaim a lock"); !live) return tl::unexpected(live.error());
  auto row = lock(t.key);
  bool running = row.phase == ledger::phase::building || row.phase == ledger::phase::partial;
  if (running && row.holder == t.who) return ledger::granted{row.token};
  bool wanted = t.built || (!row.failed && rows_.is_wanted(t.key));
  if (row.phase != ledger::phase::free || !wanted)
    return fail(ec::stale, "cannot reclaim " + t.key.to_string() + ": it is " + describe(row) +
                               (row.failed ? ", and failed"
                                : wanted   ? ""
                                           : ", and nobody wants it"));
  hand_over(row, t.built ? ledger::phase::partial : ledger::phase::building, t.who, t.node, {});
  row.drv = t.drv;
  if (row.failed) set_failure(row, {});
  save(row);
  begin_attempt(row, "reclaimed");
  return ledger::granted{row.token};
}

// T12
ledger_rules::answer ledger_rules::on(const ledger::fail_attempt& t) {
  if (t.kind == failure::none || t.kind == failure::dependency_failed)
    return fail(ec::invalid,
                "an attempt at " + t.key.to_string() + " cannot fail as " + std::string(to_string(t.kind)));
  auto row = lock_for(t.key, t.token, "fail");
  if (!row) return tl::unexpected(row.error());
  if (!is_held(*row) || row->token != t.token) return ledger::done{};
  if (!is_transient(t.kind))
    set_failure(*row,
                ledger::failure_record{t.kind, t.token, rows_.last_request_number(), cut(t.reason), tail(t.log_tail)});
  let_go(*std::move(row), t.kind, t.reason);
  return ledger::done{};
}

// T11
ledger_rules::answer ledger_rules::on(const ledger::commit& t) {
  auto row = lock_for(t.key, t.token, "commit");
  if (!row) return tl::unexpected(row.error());
  auto outputs = sorted(t.outputs);
  bool current = row->token == t.token;
  if (current && row->phase == ledger::phase::realised && row->outputs == outputs) return ledger::done{};
  bool running = row->phase == ledger::phase::building || row->phase == ledger::phase::partial;
  if (!current || !running) return stale("commit", *row, t.token); // INV-1
  if (auto valid = require_outputs(outputs); !valid) return tl::unexpected(valid.error());
  rows_.end_attempt(t.key, t.token, now_ms_, failure::none, {});
  forget_failure(*row);
  row->phase = ledger::phase::realised;
  row->holder = {};
  row->node = {};
  row->origin = {};
  row->published = false;
  row->outputs = std::move(outputs);
  save(*row);
  rows_.put_outputs(t.key, row->outputs); // INV-4
  rows_.put_outbox(t.key, true);
  changes_.outbox = true;
  return ledger::done{};
}

expected<void> ledger_rules::require_outputs(const std::vector<realised_output>& outputs) {
  if (outputs.empty()) return fail(ec::invalid, "a commit without outputs");
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    auto& o = outputs[i];
    if (o.name.empty() || (i > 0 && outputs[i - 1].name == o.name))
      return fail(ec::invalid, "a commit with the output '" + o.name + "' twice or without a name");
    if (auto present = require_blob(o.info); !present) return present;
    if (auto same = require_same_path(o.info); !same) return same;
  }
  return {};
}

// T13
ledger_rules::answer ledger_rules::on(const ledger::published& t) {
  auto row = lock(t.key);
  if (row.phase != ledger::phase::realised || row.outputs != sorted(t.outputs))
    return fail(ec::stale,
                "what was published of " + t.key.to_string() + " is not what is committed: it is " + describe(row));
  if (row.published) return ledger::done{};
  row.published = true;
  save(row);
  rows_.put_outbox(t.key, false);
  return ledger::done{};
}

// T19
ledger_rules::answer ledger_rules::on(const ledger::substitute& t) {
  if (t.key.empty()) return fail(ec::invalid, "a substitution without an inhash");
  auto row = lock(t.key);
  auto outputs = sorted(t.outputs);
  if (row.phase == ledger::phase::realised) return ledger::done{}; // INV-4: what is written stays
  if (row.phase != ledger::phase::free)
    return fail(ec::conflict, "cannot substitute " + t.key.to_string() + ": it is " + describe(row));
  if (auto valid = require_outputs(outputs); !valid) return tl::unexpected(valid.error());
  forget_failure(row);
  row.phase = ledger::phase::realised;
  row.drv = t.drv;
  row.published = false;
  row.outputs = std::move(outputs);
  save(row);
  rows_.put_outputs(t.key, row.outputs);
  rows_.put_outbox(t.key, true);
  changes_.outbox = true;
  return ledger::done{};
}

// T17
ledger_rules::answer ledger_rules::on(const ledger::retire& t) {
  auto row = lock(t.key);
  if (row.phase != ledger::phase::realised) return ledger::done{};
  if (!row.published) return fail(ec::conflict, "cannot retire " + t.key.to_string() + ": it is being published");
  if (rows_.is_wanted(t.key))
    return fail(ec::conflict, "cannot retire " + t.key.to_string() + ": an open request is interested in it");
  row.phase = ledger::phase::free;
  row.published = false;
  row.outputs.clear();
  save(row);
  rows_.put_outputs(t.key, {});
  return ledger::done{};
}

} // namespace coppice::store
