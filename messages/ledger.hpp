#pragma once

#include "messages/events.hpp"

#include <variant>

/// What may be said to the ledger: the transactions T1 to T19 of reliability.md 4.3, as values, and what it
/// answers. Each transaction names what it expects, so that asking again is harmless (R2, INV-10). A transaction
/// whose condition does not hold is answered by an error: stale, not_owner, session_over, upload_again, conflict,
/// invalid or not_found, with the row's present state in words.
namespace coppice::ledger {

/// Where an inhash stands (reliability.md 4.1).
enum class phase : std::uint8_t {
  free = 0,     ///< nobody has it
  queued = 1,   ///< a graph holds it and looks for a worker
  building = 2, ///< a worker holds it
  partial = 3,  ///< built; the outputs are on the holder's machine and not yet in the store
  realised = 4, ///< done; there are realisation rows
  last_ = realised
};
std::string_view to_string(phase p);

/// The last time that an inhash was given up. It answers every request submitted before it happened. A later request
/// may try again, unless it happened too often (store::ledger_policy).
struct failure_record {
  coppice::failure failure = failure::none;
  fence token;              ///< of the attempt that failed
  std::uint64_t after = 0;  ///< requests numbered up to this one get this failure as their answer
  std::string reason;
  std::string log_tail;
  std::uint32_t count = 0;   ///< failures that count, this one included; as it was at last_ms, decays from there
  std::int64_t last_ms = 0;  ///< wall clock, of the last one that counts
  COPPICE_STRUCT(failure_record, 1, failure, 2, token, 3, after, 4, reason, 5, log_tail, 6, count, 7, last_ms)
};

/// The row of an inhash as the ledger has it now.
struct lock_state {
  inhash key;
  fence token; ///< the current one; kept when the lock is not held
  ledger::phase phase = phase::free;
  coppice::holder holder;
  fence origin; ///< the coordinator's token that the worker's start consumed
  node_id node; ///< of the holder, once building; once realised the one that built it, or none of the farm
  nix::store_path drv; ///< the derivation it was last acquired for
  std::uint32_t infra_deaths = 0;
  bool published = false;
  std::vector<realised_output> outputs;  ///< if realised
  std::optional<failure_record> failed;
  std::uint32_t retries = 0; ///< attempts in a row that ended in something that passes: the more, the longer the wait
  std::vector<nix::store_path> missing = {}; ///< what the last attempt lacked: inputs that no store had
  COPPICE_STRUCT(lock_state, 1, key, 2, token, 3, phase, 4, holder, 5, origin, 6, node, 7, drv, 8, infra_deaths, 9,
                 published, 10, outputs, 11, failed, 12, retries, 13, missing)
};

struct done {
  COPPICE_EMPTY_STRUCT(done)
};
struct granted {
  fence token;
  COPPICE_STRUCT(granted, 1, token)
};
struct owned {
  coppice::epoch epoch;
  COPPICE_STRUCT(owned, 1, epoch)
};
struct request_row {
  request_id id;
  std::string client;       ///< the key that submitted it; the only one that may cancel it besides an admin
  request_body body;
  request_state state = request_state::open;
  session_id owner;         ///< empty: nobody's
  coppice::epoch epoch;
  std::uint64_t number = 0; ///< order of submission
  std::int64_t submitted_ms = 0; ///< wall clock, for people
  std::optional<request_result> result;
  COPPICE_STRUCT(request_row, 1, id, 2, client, 3, body, 4, state, 5, owner, 6, epoch, 7, number, 8, submitted_ms, 9,
                 result)
};
/// One try at an inhash; append-only history.
struct attempt_row {
  inhash key;
  fence token;
  nix::store_path drv;
  node_id node;
  std::int64_t started_ms = 0;          ///< wall clock, for people
  std::optional<std::int64_t> ended_ms; ///< empty while it runs
  coppice::failure result = failure::none;
  std::string reason;
  build_usage usage = {};
  COPPICE_STRUCT(attempt_row, 1, key, 2, token, 3, drv, 4, node, 5, started_ms, 6, ended_ms, 7, result, 8, reason, 9,
                 usage)
};
struct blob_state {
  generation gen; ///< put the blob under this one
  bool present = false;
  COPPICE_STRUCT(blob_state, 1, gen, 2, present)
};
struct lock_states {
  std::vector<lock_state> rows;
  COPPICE_STRUCT(lock_states, 1, rows)
};
struct request_rows {
  std::vector<request_row> rows;
  COPPICE_STRUCT(request_rows, 1, rows)
};
struct attempt_rows {
  std::vector<attempt_row> rows;
  COPPICE_STRUCT(attempt_rows, 1, rows)
};
/// A machine that built this path, has it in a store of its own, and serves it there (docs/protocol.md, "Held paths").
struct path_holder {
  nix::store_path path;
  node_id node;
  std::string url; ///< of its CACHE_SERVER
  COPPICE_STRUCT(path_holder, 1, path, 2, node, 3, url)
};
struct path_infos {
  std::vector<path_info> rows;
  std::vector<path_holder> holders = {}; ///< of some of them, if they were asked for
  COPPICE_STRUCT(path_infos, 1, rows, 2, holders)
};
/// A failure_record for people.
struct failure_row {
  inhash key;
  nix::store_path drv;
  coppice::failure failure = failure::none;
  std::uint32_t count = 0;   ///< what counts now, after decay
  std::int64_t last_ms = 0;
  bool remembered = false;   ///< requests are answered with it
  std::string reason;        ///< at most failure_row_reason_bytes_max
  COPPICE_STRUCT(failure_row, 1, key, 2, drv, 3, failure, 4, count, 5, last_ms, 6, remembered, 7, reason)
};
inline constexpr std::size_t failure_row_reason_bytes_max = 300;
struct failure_rows {
  std::vector<failure_row> rows;
  COPPICE_STRUCT(failure_rows, 1, rows)
};

struct durations {
  std::vector<std::int64_t> ms; ///< in the order asked, the median; 0 if there is none
  COPPICE_STRUCT(durations, 1, ms)
};

/// T1: a node's process started. Every lock held by an older incarnation of the node becomes free, its open
/// attempts end as `infra`; requests it owned lose their owner. Answer: done, or session_over if `incarnation`
/// is older than the stored one.
struct open_session {
  node_id node;
  coppice::incarnation incarnation;
  session_id session;
  std::int64_t ttl_ms = 0; ///< for how long it takes the session to last; invalid if the ledger ends it earlier
  std::string url = {};    ///< where others can fetch what it has built; empty: nowhere
  COPPICE_STRUCT(open_session, 1, node, 2, incarnation, 3, session, 4, ttl_ms, 5, url)
};
/// T2. Answer: done or session_over.
struct keep_alive {
  session_id session;
  std::int64_t ttl_ms = 0; ///< as of T1
  COPPICE_STRUCT(keep_alive, 1, session, 2, ttl_ms)
};
/// T3. Answer: the request_row as it stands, or conflict if the id was used for another body or by another client.
struct submit {
  request_id id;
  std::string client;
  request_body body;
  COPPICE_STRUCT(submit, 1, id, 2, client, 3, body)
};
/// T4. Answer: owned, or not_owner if somebody alive owns it, or not_found, or conflict if it is over.
struct adopt {
  request_id id;
  session_id session;
  COPPICE_STRUCT(adopt, 1, id, 2, session)
};
/// T5. Answer: granted with a new token, or the lock_state that says why not: busy, partial, realised; free if it
/// failed, since the request was submitted or too often before.
struct acquire {
  inhash key;
  nix::store_path drv;
  request_id request;
  coppice::epoch epoch;
  coppice::holder who;
  bool again = false; ///< however often it failed before the request was submitted
  COPPICE_STRUCT(acquire, 1, key, 2, drv, 3, request, 4, epoch, 5, who, 6, again)
};
/// T6: a worker takes over from the coordinator. Answer: granted with the worker's own token, or stale.
struct start {
  inhash key;
  fence token; ///< the coordinator's
  coppice::holder who;
  node_id node;
  COPPICE_STRUCT(start, 1, key, 2, token, 3, who, 4, node)
};
/// T7. Answer: done, also if the fence has passed. What passes by itself counts towards attempts_max, as with T12.
struct release {
  inhash key;
  fence token;
  coppice::failure why = failure::cancelled; ///< recorded with the attempt; infra counts towards poison
  std::string reason;
  build_usage usage = {};
  COPPICE_STRUCT(release, 1, key, 2, token, 3, why, 4, reason, 5, usage)
};
/// T8. Answer: done or stale.
struct partial {
  inhash key;
  fence token;
  COPPICE_STRUCT(partial, 1, key, 2, token)
};
/// T9: a holder that lost its lock wants it back, with the output in hand (`built`) or a frozen build. Answer:
/// granted with a new token, or stale (another builds or has built it, or nobody is interested).
struct reclaim {
  inhash key;
  nix::store_path drv;
  coppice::holder who;
  node_id node;
  bool built = false;
  COPPICE_STRUCT(reclaim, 1, key, 2, drv, 3, who, 4, node, 5, built)
};
/// T10: the blob is durably in the store under this generation. Answer: done, or upload_again.
struct register_blob {
  blob_id blob;
  generation gen;
  std::uint64_t size = 0;
  COPPICE_STRUCT(register_blob, 1, blob, 2, gen, 3, size)
};
/// T11: all outputs at once. Answer: done, upload_again, or stale. INV-1, INV-4
struct commit {
  inhash key;
  fence token;
  std::vector<realised_output> outputs;
  build_usage usage = {};
  COPPICE_STRUCT(commit, 1, key, 2, token, 3, outputs, 4, usage)
};
/// T12: the attempt failed; for good, or as many times in a row as attempts_max if it is something that passes.
/// Answer: done, also if the fence has passed.
struct fail_attempt {
  inhash key;
  fence token;
  coppice::failure kind = failure::build_failed;
  std::string reason;
  std::string log_tail;
  build_usage usage = {};
  std::vector<nix::store_path> missing = {}; ///< the inputs that no store had
  COPPICE_STRUCT(fail_attempt, 1, key, 2, token, 3, kind, 4, reason, 5, log_tail, 6, usage, 7, missing)
};
/// T13: narinfo of all outputs is durably in the store and equals the committed rows. Answer: done or stale.
struct published {
  inhash key;
  std::vector<realised_output> outputs; ///< what was published; compared with the rows
  COPPICE_STRUCT(published, 1, key, 2, outputs)
};
/// T14. Answer: the request_row with the stored result (this one, or an earlier one), or not_owner, or invalid if
/// the rows do not bear the result out. INV-3, INV-5
struct finish {
  request_id id;
  coppice::epoch epoch;
  request_result result;
  std::vector<inhash> roots; ///< whose realisations a success claims
  COPPICE_STRUCT(finish, 1, id, 2, epoch, 3, result, 4, roots)
};
/// T15. Answer: the request_row. Frees (and fences off) every lock that no other open request is interested in.
struct cancel {
  request_id id;
  std::string client; ///< empty: an admin
  bool let_finish = false; ///< only locks of what has not been started are freed
  COPPICE_STRUCT(cancel, 1, id, 2, client, 3, let_finish)
};
/// T16. Answer: blob_state with the next generation, or conflict if something names the blob.
struct condemn {
  blob_id blob;
  generation gen;
  COPPICE_STRUCT(condemn, 1, blob, 2, gen)
};
/// T17. Answer: done, or conflict if an open request is interested.
struct retire {
  inhash key;
  COPPICE_STRUCT(retire, 1, key)
};
/// T17 for what was lost: the store has not got this blob any more, or not its bytes. Retires every realisation and
/// source that names it, wanted or not, and condemns the blob (T16), so that no late upload puts it back under its
/// name. Answer: done, also if the generation has passed.
struct gone {
  blob_id blob;
  generation gen;
  COPPICE_STRUCT(gone, 1, blob, 2, gen)
};
/// An operator wants failures forgotten: those of one derivation or (empty) all. Answer: done.
struct forget_failures {
  std::optional<nix::store_path> drv;
  COPPICE_STRUCT(forget_failures, 1, drv)
};
/// T18: the session's lease is over; the lease table of the LEDGER decides that, never a client. Answer: done.
struct expire {
  session_id session;
  COPPICE_STRUCT(expire, 1, session)
};
/// An object that no derivation of this farm made was put into the store: a source of a client, or what came from a
/// trusted upstream cache. Answer: done, or upload_again, or conflict if the path is known with other contents.
struct add_source {
  path_info info;
  COPPICE_STRUCT(add_source, 1, info)
};

/// T19: an upstream cache had the outputs, and their closure is in the store. Answer: done (also if
/// it is realised already, with whatever outputs: what is written stays), or upload_again, or conflict if somebody holds
/// the lock or one of the paths is known with other contents. INV-4
struct substitute {
  inhash key;
  nix::store_path drv;
  std::vector<realised_output> outputs;
  COPPICE_STRUCT(substitute, 1, key, 2, drv, 3, outputs)
};

/// Which generation may this blob be put under? Answer: blob_state.
struct stat_blob {
  blob_id blob;
  COPPICE_STRUCT(stat_blob, 1, blob)
};
/// Answer: lock_states, in the order asked; inhashes never heard of come as free with token 0.
struct read_locks {
  std::vector<inhash> keys;
  COPPICE_STRUCT(read_locks, 1, keys)
};
/// A limit of rows: as many as the ledger gives in one answer. For those inside the node; others are told by check().
inline constexpr std::uint32_t rows_unlimited = UINT32_MAX;
/// Rows in phase queued, building or partial, of one session or (empty) of all, by session and inhash, at most `limit`
/// of those behind (after_session, after), which are those of the last row seen. Answer: lock_states.
struct held_locks {
  session_id session;
  std::uint32_t limit = 1000;
  session_id after_session = {};
  inhash after = {};
  COPPICE_STRUCT(held_locks, 1, session, 2, limit, 3, after_session, 4, after)
};
/// Realised and not published, oldest first, at most `limit`. Answer: lock_states.
struct outbox {
  std::uint32_t limit = 256;
  COPPICE_STRUCT(outbox, 1, limit)
};
/// Answer: request_rows; `id` empty: open ones, oldest first, at most `open_limit` of those numbered above
/// `open_after`, then the newest `limit` others of those numbered below `ended_before` (0: from the newest).
struct read_requests {
  request_id id;
  std::uint32_t limit = 100;
  std::uint32_t open_limit = rows_unlimited;
  std::uint64_t open_after = 0;
  std::uint64_t ended_before = 0;
  COPPICE_STRUCT(read_requests, 1, id, 2, limit, 3, open_limit, 4, open_after, 5, ended_before)
};
/// The history, newest first, at most `limit`, of one inhash or (empty) of all, from the newest or (before_ms is not 0)
/// behind the attempt that started then, of `before_key` and `before_token`. Answer: attempt_rows.
struct read_attempts {
  inhash key;
  std::optional<nix::store_path> drv; ///< only attempts of this derivation
  std::int64_t before_ms = 0;
  std::uint32_t limit = 1000;
  inhash before_key = {}; ///< empty: all that started at before_ms are left out, too
  fence before_token = {};
  COPPICE_STRUCT(read_attempts, 1, key, 2, drv, 3, before_ms, 4, limit, 5, before_key, 6, before_token)
};
/// What is known of these store paths, sources and outputs alike; unknown ones are left out. Answer: path_infos.
struct read_paths {
  std::vector<nix::store_path> paths;
  bool holders = false; ///< also which machines built them, of those whose sessions last
  COPPICE_STRUCT(read_paths, 1, paths, 2, holders)
};

/// How long did the last successful attempts at derivations of these names take? At most names_per_query_max of them,
/// each without hash, version and ".drv" (nix::name_without_version). Answer: durations.
struct read_durations {
  std::vector<std::string> names;
  COPPICE_STRUCT(read_durations, 1, names)
};
inline constexpr std::size_t names_per_query_max = 500;
/// The median of as many attempts at most.
inline constexpr std::size_t attempts_per_duration_max = 5;
/// What failed and is not realised, newest first, at most `limit`, of one derivation or (empty) of all, from the newest
/// or (`after` is not empty) behind the failure of `after` that has last_ms `before_ms`. Answer: failure_rows.
struct read_failures {
  std::optional<nix::store_path> drv;
  std::uint32_t limit = 1000;
  std::int64_t before_ms = 0;
  inhash after = {};
  COPPICE_STRUCT(read_failures, 1, drv, 2, limit, 3, before_ms, 4, after)
};

using any_transaction =
  std::variant<open_session, keep_alive, submit, adopt, acquire, start, release, partial, reclaim, register_blob, commit,
               fail_attempt, published, finish, cancel, condemn, retire, expire, add_source, stat_blob, read_locks,
               held_locks, outbox, read_requests, read_attempts, read_paths, read_durations, substitute, gone,
               forget_failures, read_failures>;

using any_answer = std::variant<done, granted, owned, lock_state, lock_states, request_row, request_rows,
                                attempt_rows, blob_state, path_infos, durations, failure_rows>;

/// A transaction in a mailbox or on the wire (as [number, body]).
struct transaction {
  any_transaction body;
  COPPICE_STRUCT(transaction, 1, body)
};
struct answer {
  any_answer body;
  COPPICE_STRUCT(answer, 1, body)
};

/// The inhashes, requests and sessions whose rows one durable batch changed; told to those who watch. A hint:
/// whoever acts on it reads the rows first (R1).
struct changed {
  std::vector<lock_state> locks;
  std::vector<request_id> requests;
  bool outbox = false; ///< something waits to be published
  std::vector<farm_event> events = {}; ///< what happened, in order; for OBSERVATORY alone
  COPPICE_STRUCT(changed, 1, locks, 2, requests, 3, outbox, 4, events)
};

} // namespace coppice::ledger
