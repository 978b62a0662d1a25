#pragma once

#include "messages/build.hpp"
#include "messages/ledger.hpp"
#include "messages/status.hpp"

/// The client's protocol: what `coppice`, `coppice-admin` and clients in other languages say to a node
/// (docs/protocol.md). Every request may be repeated.
namespace coppice {

/// What a key may do. A higher role may do what the lower ones may. Numbers are on the wire.
enum class role : std::uint8_t {
  observer = 0,  ///< may look
  submitter = 1, ///< may submit, and cancel its own requests
  admin = 2,     ///< may do all that an operator does
  node = 3,      ///< a machine of the farm
  last_ = node
};
std::string_view to_string(role r);

/// Who speaks, as its CURVE key proves (INV-15); filled in by BRIDGE, never by the sender.
struct caller {
  std::string name; ///< of the key in the allow-list
  coppice::role role = role::observer;
  COPPICE_STRUCT(caller, 1, name, 2, role)
};

/// What a node says of itself.
struct node_info {
  node_id node;
  std::string version;
  std::string http;       ///< base URL of the binary cache, e.g. "http://127.0.0.1:5001"
  std::string public_key; ///< of the cache's signatures, "name:base64"
  std::string store_dir;  ///< "/nix/store"
  std::vector<std::string> systems;
  COPPICE_STRUCT(node_info, 1, node, 2, version, 3, http, 4, public_key, 5, store_dir, 6, systems)
};
struct get_info {
  COPPICE_EMPTY_STRUCT(get_info)
};

/// Which of these does the farm lack? Answer: what to upload, and the ticket to do it with.
struct find_missing {
  std::vector<nix::store_path> sources; ///< at most sources_per_query_max
  blob_id closure;                      ///< the packed derivation closure (store/closure.hpp)
  COPPICE_STRUCT(find_missing, 1, sources, 2, closure)
};
struct missing {
  std::vector<nix::store_path> sources;
  bool closure = false;
  std::string upload_url; ///< PUT <upload_url>/source/<base name> (an export of the path, as nix-store --export makes
                          ///< it), PUT <upload_url>/closure/<hex of closure>, with "Authorization: Bearer <ticket>"
  std::string ticket;
  COPPICE_STRUCT(missing, 1, sources, 2, closure, 3, upload_url, 4, ticket)
};
inline constexpr std::size_t sources_per_query_max = 10000;

/// Answer: the request's state, once it is durable (INV-6).
struct submit_request {
  request_id id; ///< 128 random bits, chosen by the client
  request_body body;
  COPPICE_STRUCT(submit_request, 1, id, 2, body)
};
struct accepted {
  request_id id;
  request_state state = request_state::open;
  COPPICE_STRUCT(accepted, 1, id, 2, state)
};

/// One change in a request, numbered from 1 without gaps.
struct step_event {
  std::uint64_t seq = 0;
  nix::store_path drv;
  inhash key;
  step_state state = step_state::planned;
  node_id node;              ///< if building
  fence token;               ///< of the attempt, if any
  coppice::failure failure = failure::none;
  std::string text;          ///< reason of a failure, or of waiting
  std::string log_tail;      ///< if failed
  std::int64_t duration_ms = 0; ///< of the build, if it is over
  std::uint64_t bytes = 0;      ///< of its outputs as NARs, if built
  COPPICE_STRUCT(step_event, 1, seq, 2, drv, 3, key, 4, state, 5, node, 6, token, 7, failure, 8, text, 9, log_tail, 10,
                 duration_ms, 11, bytes)
};
/// A build that runs now.
struct running_step {
  nix::store_path drv;
  inhash key;
  fence token;
  node_id node;
  std::int64_t elapsed_ms = 0;
  std::string phase; ///< e.g. "fetching inputs", "buildPhase", "uploading"
  std::string last_line; ///< of its log, at most last_line_bytes_max, control characters removed
  COPPICE_STRUCT(running_step, 1, drv, 2, key, 3, token, 4, node, 5, elapsed_ms, 6, phase, 7, last_line)
};
inline constexpr std::size_t last_line_bytes_max = 200;
struct step_counts {
  std::uint64_t total = 0, planned = 0, queued = 0, building = 0, built = 0, reused = 0, failed = 0, not_attempted = 0;
  COPPICE_STRUCT(step_counts, 1, total, 2, planned, 3, queued, 4, building, 5, built, 6, reused, 7, failed, 8,
                 not_attempted)
};

/// Answered at once if there are events after `after` or the request is over, else when something happens or
/// `wait_ms` (at most poll_wait_ms_max) is over.
struct poll_request {
  request_id id;
  std::uint64_t after = 0; ///< the last seq seen; 0 for all there are
  std::uint32_t wait_ms = 0;
  COPPICE_STRUCT(poll_request, 1, id, 2, after, 3, wait_ms)
};
inline constexpr std::uint32_t poll_wait_ms_max = 10000;
/// Events that a graph keeps for those who come late; older ones are gone, and `lost` says so.
inline constexpr std::size_t events_kept_max = 20000;
/// Events in one answer; ask again for more.
inline constexpr std::size_t events_per_poll_max = 500;
struct request_progress {
  request_id id;
  request_state state = request_state::open;
  std::uint64_t next = 0;  ///< pass as `after` next time; starts anew when another coordinator took over (see stream)
  std::uint64_t stream = 0; ///< identifies the numbering; when it changes, events start from 1 again
  bool lost = false;       ///< events between `after` and the first one here are no longer kept
  std::vector<step_event> events;
  std::vector<running_step> running;
  step_counts counts;
  std::optional<request_result> result; ///< once over
  std::string waits_for = {}; ///< why what is queued is not started although nobody uses the slots; or empty
  COPPICE_STRUCT(request_progress, 1, id, 2, state, 3, next, 4, stream, 5, lost, 6, events, 7, running, 8, counts, 9,
                 result, 10, waits_for)
};

/// As ledger::read_requests.
struct get_requests {
  request_id id; ///< empty: open ones, and the newest `limit` others
  std::uint32_t limit = 20;
  std::uint32_t open_limit = 1000;
  std::uint64_t open_after = 0;
  std::uint64_t ended_before = 0;
  COPPICE_STRUCT(get_requests, 1, id, 2, limit, 3, open_limit, 4, open_after, 5, ended_before)
};
struct request_summary {
  request_id id;
  request_state state = request_state::open;
  std::string client;
  std::vector<nix::store_path> roots;
  std::int64_t submitted_ms = 0;
  std::int32_t priority = 0;
  std::optional<request_result> result;
  std::uint64_t number = 0; ///< order of submission
  COPPICE_STRUCT(request_summary, 1, id, 2, state, 3, client, 4, roots, 5, submitted_ms, 6, priority, 7, result, 8,
                 number)
};
struct request_summaries {
  std::vector<request_summary> rows;
  COPPICE_STRUCT(request_summaries, 1, rows)
};

/// Ends a request: nothing of it is started any more.
struct cancel_request {
  request_id id;
  bool let_finish = false; ///< what runs for it is finished and kept; else it is killed, unless others want it, too
  COPPICE_STRUCT(cancel_request, 1, id, 2, let_finish)
};

/// Where is the log of this derivation's newest attempt, or of this attempt?
struct find_log {
  std::optional<nix::store_path> drv; ///< else key and token say which
  inhash key;
  fence token;
  COPPICE_STRUCT(find_log, 1, drv, 2, key, 3, token)
};
struct log_place {
  ledger::attempt_row attempt;
  std::string url; ///< GET, with Range to follow; grows while the attempt runs
  COPPICE_STRUCT(log_place, 1, attempt, 2, url)
};

struct get_tree {
  COPPICE_EMPTY_STRUCT(get_tree)
};
struct actor_tree {
  node_id node;
  std::vector<actor_status> actors; ///< ordered by path
  std::int64_t at_ms = 0;           ///< wall clock of the node
  COPPICE_STRUCT(actor_tree, 1, node, 2, actors, 3, at_ms)
};
struct kill_actor {
  std::string path;
  bool crash = false; ///< by an exception instead of an exit
  /// The actor's restarts as the tree showed them: one that was restarted since is not ended again, so that an order may be
  /// said again whose answer died with the actor. None: whoever serves there.
  std::optional<std::uint64_t> restarts = {};
  COPPICE_STRUCT(kill_actor, 1, path, 2, crash, 3, restarts)
};

/// A log's phase and last line, and what a worker is doing; soft, at most one per second and build.
struct step_progress {
  inhash key;
  nix::store_path drv;
  fence token;
  node_id node;
  std::string phase;
  std::string last_line;
  bool over = false; ///< the worker is done with it
  COPPICE_STRUCT(step_progress, 1, key, 2, drv, 3, token, 4, node, 5, phase, 6, last_line, 7, over)
};

} // namespace coppice
