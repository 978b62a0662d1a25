#include "actors/build/attempt.hpp"

#include <utility>

namespace coppice::actors {

std::string_view attempt::to_string(stage s) {
  switch (s) {
    case stage::fetching: return "fetching inputs";
    case stage::starting: return "starting";
    case stage::building: return "building";
    case stage::resuming: return "asking for its lock again";
    case stage::packing: return "packing";
    case stage::keeping: return "registering";
    case stage::storing: return "uploading";
    case stage::committing: return "committing";
    case stage::failing: return "reporting failure";
    case stage::releasing: return "releasing";
    case stage::reclaiming: return "reclaiming";
    case stage::over: return "over";
  }
  return "?";
}

attempt::effects attempt::enter(stage s) {
  stage_ = s;
  lost_answer_ = false;
  return order();
}

attempt::effects attempt::order() const {
  switch (stage_) {
    case stage::fetching: return {fetch{}};
    case stage::starting: return {start{token_}};
    case stage::building: return {run{}};
    case stage::resuming: return {reclaim{false}};
    case stage::packing: return {pack{}};
    case stage::keeping: return {keep{outputs_}};
    case stage::storing: return {store{}};
    case stage::committing: return {commit{token_, outputs_, usage_}};
    case stage::failing: return {fail{token_, kind_, reason_, log_tail_, usage_, missing_}};
    case stage::releasing: return {release{token_, kind_, reason_, usage_}};
    case stage::reclaiming: return {reclaim{true}};
    case stage::over: return {end{}};
  }
  return {};
}

attempt::effects attempt::begin() { return enter(stage_); }

attempt::effects attempt::on_fetched() { return stage_ == stage::fetching ? enter(stage::starting) : effects{}; }

attempt::effects attempt::on_fetch_failed(const error& e) {
  if (stage_ != stage::fetching) return {};
  lost_answer_ = ++fetches_failed_ < fetches_max;
  if (lost_answer_) return {};
  kind_ = failure::infra;
  reason_ = "cannot fetch the inputs: " + e.what;
  // fails under a token of its own: only so it is recorded and counted, and the retries end (INV-18)
  return enter(stage::starting);
}

attempt::effects attempt::on_missing(std::vector<nix::store_path> paths, const std::string& why) {
  if (stage_ != stage::fetching) return {};
  kind_ = failure::inputs_missing;
  reason_ = "the input " + paths.front().to_string() + " is missing: " + why;
  if (paths.size() > 1) reason_ += "; and so are " + std::to_string(paths.size() - 1) + " more";
  missing_ = std::move(paths);
  return enter(stage::starting);
}

attempt::effects attempt::on_token(fence mine, lease_term lease) {
  if (stage_ != stage::starting && stage_ != stage::reclaiming && stage_ != stage::resuming) return {};
  token_ = mine;
  lease_ = lease;
  if (stage_ == stage::reclaiming) return enter(stage::storing);
  if (stage_ == stage::starting && stopping_) return give_back();
  if (stage_ == stage::starting) return enter(kind_ == failure::none ? stage::building : stage::failing);
  stage_ = stage::building;
  lost_answer_ = false;
  if (!exit_) return {extend{lease_.until_ms}};
  auto [exit, tail] = *std::exchange(exit_, {});
  return on_exited(exit, std::move(tail));
}

attempt::effects attempt::on_lease(lease_term lease) {
  if (stage_ != stage::building || killed_ || lease.term == 0) return {};
  if (lease.term != lease_.term) return enter(stage::resuming);
  lease_ = lease;
  return {extend{lease_.until_ms}};
}

attempt::effects attempt::on_exited(const build_exit& e, std::string log_tail) {
  if (stage_ == stage::resuming) exit_.emplace(e, std::move(log_tail)); // whose it is, is being asked
  if (stage_ != stage::building) return {};
  if (killed_) return finish();
  usage_ = e.usage;
  if (e.failure == failure::none) return enter(stage::packing);
  if (stopping_ && e.failure == failure::cancelled) return give_back();
  kind_ = e.failure;
  reason_ = e.reason;
  log_tail_ = std::move(log_tail);
  return enter(stage::failing);
}

attempt::effects attempt::on_packed(std::vector<realised_output> outputs) {
  if (stage_ != stage::packing) return {};
  outputs_ = std::move(outputs);
  return enter(stage::keeping);
}

attempt::effects attempt::on_same(std::vector<realised_output> registered) {
  if (stage_ != stage::packing) return {};
  outputs_ = std::move(registered);
  return enter(stage::committing);
}

attempt::effects attempt::on_rejected(failure kind, std::string reason) {
  if (stage_ == stage::storing) lost_answer_ = true; // what is kept was good: it is put again
  if (stage_ == stage::resuming) { // it was about to begin
    build_exit e;
    e.failure = kind;
    e.reason = std::move(reason);
    return on_exited(e, {});
  }
  if (stage_ != stage::packing && stage_ != stage::keeping && stage_ != stage::building) return {};
  kind_ = kind;
  reason_ = std::move(reason);
  return enter(is_transient(kind) ? stage::releasing : stage::failing);
}

attempt::effects attempt::on_kept() {
  if (stage_ != stage::keeping) return {};
  auto out = enter(stage::storing);
  slot_freed_ = true;
  out.insert(out.begin(), free_slot{});
  return out;
}

attempt::effects attempt::on_stored(std::vector<realised_output> outputs) {
  if (stage_ != stage::storing) return {};
  outputs_ = std::move(outputs);
  return enter(stage::committing);
}

attempt::effects attempt::on_store_failed() {
  if (stage_ != stage::storing || told_partial_) return {};
  told_partial_ = true;
  return {partial{token_}};
}

attempt::effects attempt::on_settled() {
  switch (stage_) {
    case stage::committing: committed_ = true; return finish();
    case stage::failing:
    case stage::releasing: return finish();
    default: return {};
  }
}

/// In these stages a transaction is under way.
bool attempt::asks() const {
  return stage_ == stage::starting || stage_ == stage::committing || stage_ == stage::failing ||
         stage_ == stage::releasing || stage_ == stage::reclaiming || stage_ == stage::resuming;
}

attempt::effects attempt::on_refused(const error& e) {
  if (!asks()) return {}; // late
  switch (e.code) {
    case ec::stale:
    case ec::not_owner:
    case ec::not_found:
    case ec::ledger_regressed: return lose();
    case ec::conflict:
    case ec::invalid: // the token is good and the outputs are not: another try with them would be refused again
      if (stage_ != stage::committing) return lose();
      kind_ = failure::output_rejected;
      reason_ = e.what;
      return enter(stage::failing);
    case ec::upload_again:
      if (compares_ && stage_ == stage::committing) {
        kind_ = failure::store_down;
        reason_ = "what it was to be compared with is gone: " + e.what;
        return enter(stage::failing);
      }
      if (stage_ == stage::committing) return enter(stage::storing);
      return lose();
    default: lost_answer_ = true; return {}; // session_over too: SESSION opens it again, or the process ends
  }
}

attempt::effects attempt::lose() {
  if (stage_ == stage::resuming) {
    if (exit_) return finish();
    stage_ = stage::building;
    lost_answer_ = false;
    killed_ = true;
    if (stopping_) return {}; // it is being killed
    return {kill{failure::cancelled, "nobody wants it any more, or another machine took over"}};
  }
  if (compares_) return stage_ == stage::over ? effects{} : finish();
  switch (stage_) {
    case stage::storing:
    case stage::committing: return enter(stage::reclaiming); // the output is in hand: it may still be wanted
    case stage::over: return {};
    default: return finish();
  }
}

bool attempt::may_drop(fence token) const {
  return (stage_ == stage::storing && token == token_) || (stage_ == stage::reclaiming && token >= token_);
}

attempt::effects attempt::on_dropped(std::string reason) {
  if (stage_ == stage::reclaiming) return finish(); // no token is left to be given back
  if (stage_ != stage::storing) return {};
  kind_ = failure::cancelled;
  reason_ = std::move(reason);
  return enter(stage::releasing);
}

attempt::effects attempt::on_stop(std::string reason) {
  if (stopping_ || killed_) return {};
  switch (stage_) {
    case stage::fetching: return finish(); // the lock is still its GRAPH's
    case stage::starting:
    case stage::building:
    case stage::resuming: break;
    default: return {};
  }
  stopping_ = std::move(reason);
  if (stage_ == stage::starting) return {};
  return {kill{failure::cancelled, *stopping_}};
}

attempt::effects attempt::give_back() {
  kind_ = failure::cancelled;
  reason_ = *stopping_;
  return enter(stage::releasing);
}

/// The lock is lost, and nobody else works at it: it expired, and somebody may have asked for it since.
bool attempt::is_idle(const ledger::lock_state& row) const {
  return row.phase == ledger::phase::queued || (row.phase == ledger::phase::free && row.token == token_);
}

attempt::effects attempt::on_row(const ledger::lock_state& row) {
  if (row.token < token_ || (row.token == token_ && !is_idle(row))) return {};
  switch (stage_) {
    case stage::fetching: return row.token == token_ ? effects{} : finish();
    case stage::building:
      if (killed_) return {};
      stage_ = stage::resuming;
      return is_idle(row) ? enter(stage::resuming) : lose();
    case stage::packing: return is_idle(row) ? effects{} : finish(); // the commit will tell
    case stage::storing:
    case stage::committing: return lose();
    case stage::failing:
    case stage::releasing: return row.token == token_ ? effects{} : finish(); // perhaps that was its doing
    case stage::keeping: // cannot be stopped half-way; the commit will tell
    case stage::starting:
    case stage::resuming:
    case stage::reclaiming: // the answer will tell
    case stage::over: return {};
  }
  return {};
}

attempt::effects attempt::on_tick() {
  if (!lost_answer_) return {};
  lost_answer_ = false;
  return order();
}

attempt::effects attempt::finish() {
  stage_ = stage::over;
  lost_answer_ = false;
  effects out;
  if (!slot_freed_) out.emplace_back(free_slot{});
  slot_freed_ = true;
  out.emplace_back(discard{committed_});
  out.emplace_back(end{});
  return out;
}

} // namespace coppice::actors
