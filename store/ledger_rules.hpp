#pragma once

#include "store/ledger.hpp"
#include "store/ledger_rows.hpp"

#include <map>
#include <set>
#include <utility>

namespace coppice::store {

/// What a batch changed: each inhash and request once, in its last state.
struct ledger_changes {
  std::map<inhash, ledger::lock_state> locks;
  std::set<request_id> requests;
  bool outbox = false;
  std::vector<farm_event> events; ///< in order
  /// What happened after this.
  void absorb(ledger_changes&& later);
  /// Moves all into `out`, behind what is there.
  void append_to(ledger::changed& out);
};

/// Rows that an answer holds at most, unless the question listed them; reads with higher limits get so many.
inline constexpr std::uint32_t ledger_rows_max = 65'536;
/// Rows that are changed at once, of any number that a transaction changes.
inline constexpr std::uint32_t ledger_chunk_rows = 256;
/// Bytes of a reason kept in the ledger; longer ones are cut.
inline constexpr std::size_t ledger_reason_bytes_max = 4096;

/// The transactions of messages/ledger.hpp, once and for every backend: (rows, transaction, now) → (rows, answer).
/// Pure but for the rows. A transaction that is answered by an error has written nothing: all conditions are read
/// first. The clock is only written down; compared it is only for the fading of failures, which no invariant needs.
class ledger_rules {
public:
  using answer = expected<ledger::any_answer>;

  ledger_rules(ledger_rows& rows, const ledger_policy& policy, std::int64_t wall_now_ms, ledger_changes& changes)
      : rows_(rows), policy_(policy), now_ms_(wall_now_ms), changes_(changes) {}

  answer apply(const ledger::any_transaction& t);

private:
  // sessions and requests
  answer on(const ledger::open_session& t);
  answer on(const ledger::keep_alive& t);
  answer on(const ledger::expire& t);
  answer on(const ledger::submit& t);
  answer on(const ledger::adopt& t);
  answer on(const ledger::finish& t);
  answer on(const ledger::cancel& t);
  // locks
  answer on(const ledger::acquire& t);
  answer on(const ledger::start& t);
  answer on(const ledger::release& t);
  answer on(const ledger::partial& t);
  answer on(const ledger::reclaim& t);
  answer on(const ledger::fail_attempt& t);
  answer on(const ledger::commit& t);
  answer on(const ledger::published& t);
  answer on(const ledger::retire& t);
  answer on(const ledger::substitute& t);
  answer on(const ledger::forget_failures& t);
  // blobs and paths
  answer on(const ledger::register_blob& t);
  answer on(const ledger::condemn& t);
  answer on(const ledger::gone& t);
  answer on(const ledger::add_source& t);
  // reads
  answer on(const ledger::stat_blob& t);
  answer on(const ledger::read_locks& t);
  answer on(const ledger::held_locks& t);
  answer on(const ledger::outbox& t);
  answer on(const ledger::read_requests& t);
  answer on(const ledger::read_attempts& t);
  answer on(const ledger::read_paths& t);
  answer on(const ledger::read_durations& t);
  answer on(const ledger::read_failures& t);

  /// session_over unless this session's lease runs: nobody else may hold or own anything, for it would hold it for
  /// ever.
  expected<void> require_live(const session_id& session, const char* what);
  /// not_owner or not_found unless the request is open in this epoch.
  expected<request_head> require_epoch(const request_id& id, epoch e, const char* what);
  /// upload_again unless the blob is present in this very generation. INV-8
  expected<void> require_blob(const path_info& info);
  /// The blob, unless it has not come to this generation; then invalid.
  expected<blob_row> blob_of(const blob_id& blob, generation gen);
  /// The blob has not the bytes of its present generation any more. INV-8
  void end_generation(blob_row& row);
  /// conflict if the path is known with other contents. INV-4
  expected<void> require_same_path(const path_info& info);
  expected<void> require_outputs(const std::vector<realised_output>& outputs);
  expected<void> require_roots(const ledger::finish& t);
  ledger::lock_state lock(const inhash& key);
  /// The row, or ledger_regressed if the token was never handed out. INV-7
  expected<ledger::lock_state> lock_for(const inhash& key, fence token, const char* what);

  void end_session(const session_id& session, const char* reason);
  /// `before` is the row as it was.
  void end_request(const ledger::request_row& before, const request_result& result);
  void save(const ledger::lock_state& row);
  /// A change of holder: takes the next fence.
  void hand_over(ledger::lock_state& row, ledger::phase phase, const holder& who, const node_id& node, fence origin);
  /// Frees the row, and returns it so; its attempt, if one runs, ends.
  ledger::lock_state let_go(ledger::lock_state row, failure why, const std::string& reason,
                            const build_usage& usage = {});
  /// From here on these are its outputs, to be published. INV-4
  void realise(ledger::lock_state& row, std::vector<realised_output> outputs);
  void retract(ledger::lock_state row);
  void count_retry(ledger::lock_state& row, failure why, const std::string& last);
  void count_death(ledger::lock_state& row, const std::string& last);
  void give_up(ledger::lock_state& row, failure kind, const std::string& reason, const std::string& log_tail);
  void set_failure(ledger::lock_state& row, std::optional<ledger::failure_record> failed);
  void begin_anew(ledger::lock_state& row);
  /// How many of its failures still count.
  std::uint32_t count_now(const ledger::failure_record& failed) const;
  bool is_remembered(const ledger::failure_record& failed) const;
  void begin_attempt(const ledger::lock_state& row, std::string reason);
  void end_attempt(const ledger::lock_state& row, failure result, const std::string& reason, const build_usage& usage,
                   const std::vector<realised_output>& outputs = {});
  /// Tells that it happened, once the batch is durable.
  farm_event& tell(event_kind kind);
  farm_event& tell(event_kind kind, const ledger::lock_state& row);

  ledger_rows& rows_;
  const ledger_policy& policy_;
  std::int64_t now_ms_;
  ledger_changes& changes_;
};

/// For error texts: "building on a under token 7".
std::string describe(const ledger::lock_state& row);
/// The last thing that happened to it is that it was given up.
bool has_just_failed(const ledger::lock_state& row);
/// Queued, building or partial.
bool is_held(const ledger::lock_state& row);

} // namespace coppice::store
