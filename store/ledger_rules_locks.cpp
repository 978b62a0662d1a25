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

std::uint64_t nar_bytes(const std::vector<realised_output>& outputs) {
  std::uint64_t sum = 0;
  for (auto& o : outputs)
    sum += o.info.nar_size;
  return sum;
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
  row.missing.clear();
}

void ledger_rules::set_failure(ledger::lock_state& row, std::optional<ledger::failure_record> failed) {
  row.failed = std::move(failed);
  rows_.put_failure(row.key, row.failed);
}

/// Whatever it was that passes: from here on it does not count.
void ledger_rules::begin_anew(ledger::lock_state& row) {
  row.retries = 0;
  if (row.infra_deaths == 0) return;
  row.infra_deaths = 0;
  rows_.clear_death_nodes(row.key);
}

std::uint32_t ledger_rules::count_now(const ledger::failure_record& failed) const {
  auto decay = policy_.failures_decay.count();
  if (decay <= 0 || now_ms_ <= failed.last_ms) return failed.count;
  auto faded = static_cast<std::uint64_t>((now_ms_ - failed.last_ms) / decay);
  return faded >= failed.count ? 0 : failed.count - static_cast<std::uint32_t>(faded);
}

bool ledger_rules::is_remembered(const ledger::failure_record& failed) const {
  return policy_.failures_threshold > 0 && !is_transient(failed.failure) &&
         count_now(failed) >= policy_.failures_threshold;
}

void ledger_rules::give_up(ledger::lock_state& row, failure kind, const std::string& reason,
                           const std::string& log_tail) {
  ledger::failure_record now{kind, row.token, rows_.last_request_number(), cut(reason), tail(log_tail), 0, 0};
  if (row.failed) now.count = row.failed->count, now.last_ms = row.failed->last_ms;
  if (!is_transient(kind)) {
    now.count = (row.failed ? count_now(*row.failed) : 0) + 1;
    now.last_ms = now_ms_;
  }
  set_failure(row, std::move(now));
}

void ledger_rules::begin_attempt(const ledger::lock_state& row, std::string reason) {
  tell(event_kind::attempt_started, row).text = reason;
  rows_.add_attempt({row.key, row.token, row.drv, row.node, now_ms_, {}, failure::none, std::move(reason), {}});
}

void ledger_rules::end_attempt(const ledger::lock_state& row, failure result, const std::string& reason,
                               const build_usage& usage, const std::vector<realised_output>& outputs) {
  rows_.end_attempt(row.key, row.token, {now_ms_, result, cut(reason), usage});
  auto& e = tell(event_kind::attempt_ended, row);
  e.failure = result;
  e.duration_ms = usage.wall_ms;
  e.bytes = nar_bytes(outputs);
  e.text = reason.substr(0, event_text_bytes_max);
}

ledger::lock_state ledger_rules::let_go(ledger::lock_state row, failure why, const std::string& reason,
                                        const build_usage& usage) {
  if (row.phase != ledger::phase::queued) {
    end_attempt(row, why, reason, usage);
    if (is_transient(why) && why != failure::cancelled) count_retry(row, why, reason);
  }
  row.phase = ledger::phase::free;
  row.holder = {};
  row.node = {};
  row.origin = {};
  save(row);
  return row;
}

// INV-18
void ledger_rules::count_retry(ledger::lock_state& row, failure why, const std::string& last) {
  ++row.retries;
  if (why == failure::infra) count_death(row, last);
  if (has_just_failed(row) || row.retries < policy_.attempts_max) return;
  give_up(row, why, std::to_string(row.retries) + " attempts in a row came to nothing; the last one: " + last, {});
}

// INV-17
void ledger_rules::count_death(ledger::lock_state& row, const std::string& last) {
  ++row.infra_deaths;
  auto nodes = rows_.death_nodes(row.key);
  if (std::find(nodes.begin(), nodes.end(), row.node) == nodes.end()) {
    rows_.add_death_node(row.key, row.node);
    nodes.push_back(row.node);
  }
  if (nodes.size() < policy_.poison_max && row.infra_deaths < policy_.attempts_max) return;
  std::sort(nodes.begin(), nodes.end());
  auto reason = std::to_string(row.infra_deaths) + " attempts ended with their worker or machine, on";
  for (auto& node : nodes)
    reason += " " + node.value;
  if (!last.empty()) reason += "; the last one: " + last;
  give_up(row, failure::poisoned, reason, {});
}

// T5
ledger_rules::answer ledger_rules::on(const ledger::acquire& t) {
  if (t.key.empty()) return fail(ec::invalid, "an acquire without an inhash");
  if (auto live = require_live(t.who.session, "acquire a lock"); !live) return tl::unexpected(live.error());
  auto request = require_epoch(t.request, t.epoch, "acquire a lock");
  if (!request) return tl::unexpected(request.error());
  auto row = lock(t.key);
  bool mine = row.phase == ledger::phase::queued && row.holder == t.who;
  bool failed = row.failed && (request->number <= row.failed->after || (!t.again && is_remembered(*row.failed)));
  if (mine || failed || row.phase != ledger::phase::free) {
    rows_.add_interest(t.key, t.request);
    if (mine) return ledger::granted{row.token};
    return row;
  }
  if (has_just_failed(row)) begin_anew(row);
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
  if (is_held(*row) && row->token == t.token) let_go(*std::move(row), t.why, t.reason, t.usage);
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
  tell(event_kind::upload_partial, *row);
  return ledger::done{};
}

// T9
ledger_rules::answer ledger_rules::on(const ledger::reclaim& t) {
  if (t.key.empty()) return fail(ec::invalid, "a reclaim without an inhash");
  if (auto live = require_live(t.who.session, "reclaim a lock"); !live) return tl::unexpected(live.error());
  auto row = lock(t.key);
  bool running = row.phase == ledger::phase::building || row.phase == ledger::phase::partial;
  if (running && row.holder == t.who) return ledger::granted{row.token};
  bool wanted = t.built || (!has_just_failed(row) && rows_.is_wanted(t.key));
  // a token that waits for a worker gives way: whoever starts under it later is stale
  bool idle = row.phase == ledger::phase::free || row.phase == ledger::phase::queued;
  if (!idle || !wanted)
    return fail(ec::stale, "cannot reclaim " + t.key.to_string() + ": it is " + describe(row) +
                               (has_just_failed(row) ? ", and failed"
                                : wanted             ? ""
                                                     : ", and nobody wants it"));
  hand_over(row, t.built ? ledger::phase::partial : ledger::phase::building, t.who, t.node, {});
  row.drv = t.drv;
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
  row->missing = t.missing;
  if (!is_transient(t.kind)) give_up(*row, t.kind, t.reason, t.log_tail);
  let_go(*std::move(row), t.kind, t.reason, t.usage);
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
  end_attempt(*row, failure::none, {}, t.usage, outputs);
  realise(*row, std::move(outputs));
  return ledger::done{};
}

void ledger_rules::realise(ledger::lock_state& row, std::vector<realised_output> outputs) {
  begin_anew(row);
  if (row.failed) set_failure(row, {});
  row.phase = ledger::phase::realised;
  row.holder = {}; // but the node stays: it has the outputs
  row.origin = {};
  row.missing.clear();
  row.published = false;
  row.outputs = std::move(outputs);
  save(row);
  rows_.put_outputs(row.key, row.outputs);
  rows_.put_outbox(row.key, true);
  changes_.outbox = true;
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
  tell(event_kind::published, row);
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
  row.drv = t.drv;
  realise(row, std::move(outputs));
  tell(event_kind::substituted, row).bytes = nar_bytes(row.outputs);
  return ledger::done{};
}

// T17
ledger_rules::answer ledger_rules::on(const ledger::retire& t) {
  auto row = lock(t.key);
  if (row.phase != ledger::phase::realised) return ledger::done{};
  if (!row.published) return fail(ec::conflict, "cannot retire " + t.key.to_string() + ": it is being published");
  if (rows_.is_wanted(t.key))
    return fail(ec::conflict, "cannot retire " + t.key.to_string() + ": an open request is interested in it");
  retract(std::move(row));
  return ledger::done{};
}

void ledger_rules::retract(ledger::lock_state row) {
  row.phase = ledger::phase::free;
  row.node = {};
  row.published = false;
  row.outputs.clear();
  save(row);
  rows_.put_outputs(row.key, {});
}

ledger_rules::answer ledger_rules::on(const ledger::forget_failures& t) {
  const ledger::read_failures chunk{t.drv, ledger_chunk_rows};
  for (auto failed = rows_.failed_locks(chunk); !failed.empty(); failed = rows_.failed_locks(chunk))
    for (auto& row : failed) {
      begin_anew(row);
      set_failure(row, {});
      save(row);
    }
  return ledger::done{};
}

} // namespace coppice::store
