#pragma once

#include "messages/client.hpp"
#include "messages/pipeline.hpp"

/// What an operator asks and orders, and why a step is not built yet: `inspector` in docs/protocol.md.
namespace coppice {

/// Where a derivation stands in the plan of one request. Numbers are on the wire.
enum class step_life : std::uint8_t {
  unknown = 0,        ///< nobody asked for it yet: what needs it is there, or is not looked at yet
  asked = 1,          ///< existence is being asked
  wanted = 2,         ///< not there: must be built, waits for inputs
  ready = 3,          ///< every input is there
  delayed = 4,        ///< the same, but the last try came to nothing, and the next one has to wait
  acquiring = 5,      ///< its lock is being asked for
  waiting = 6,        ///< somebody else holds the lock, or it is realised and not yet published
  queued = 7,         ///< ours, looks for a worker
  building = 8,       ///< a worker has it
  done = 9,           ///< realised and published
  failed = 10,        ///< by itself
  not_attempted = 11, ///< an input failed
  last_ = not_attempted
};
std::string_view to_string(step_life l);

/// Where a job stands in the queue, whatever comes and goes before it.
struct queue_place {
  std::int32_t priority = 0;
  std::uint32_t critical_path = 0;
  std::uint64_t age = 0;
  inhash key;
  COPPICE_STRUCT(queue_place, 1, priority, 2, critical_path, 3, age, 4, key)
};
/// Jobs that wait for a machine, most urgent first.
struct get_queue {
  std::uint64_t offset = 0;  ///< leave out so many of them
  std::uint32_t limit = 100; ///< at most rows_max
  std::optional<queue_place> after = {}; ///< only those behind it: the place of the last one seen
  COPPICE_STRUCT(get_queue, 1, offset, 2, limit, 3, after)
};
struct queued_job {
  std::uint64_t position = 0; ///< from 1, among those that wait for the same kind of slot
  nix::store_path drv;
  inhash key;
  request_id request; ///< that acquired it
  std::int32_t priority = 0;
  std::uint32_t critical_path = 0;
  bool io_bound = false;
  std::int64_t waiting_ms = 0;
  std::string why; ///< in short: no machine takes it now
  std::uint64_t age = 0; ///< order of arrival
  COPPICE_STRUCT(queued_job, 1, position, 2, drv, 3, key, 4, request, 5, priority, 6, critical_path, 7, io_bound, 8,
                 waiting_ms, 9, why, 10, age)
};
struct job_queue {
  std::vector<queued_job> rows;
  std::uint64_t total = 0;    ///< that wait
  std::uint64_t assigned = 0; ///< that a machine was told of and has not answered for
  COPPICE_STRUCT(job_queue, 1, rows, 2, total, 3, assigned)
};

/// The machines that offer themselves.
struct get_nodes {
  COPPICE_EMPTY_STRUCT(get_nodes)
};
struct node_status {
  offer what;
  std::int64_t heard_ms = 0; ///< ago: the offer is as old
  bool online = true;        ///< false: it offers nothing any more, and is given nothing
  std::int64_t since_ms = 0; ///< it has been so
  COPPICE_STRUCT(node_status, 1, what, 2, heard_ms, 3, online, 4, since_ms)
};
struct node_statuses {
  std::vector<node_status> rows;
  COPPICE_STRUCT(node_statuses, 1, rows)
};

/// What runs on the machine is finished and uploaded, and it takes no more until it is undrained; remembered over
/// restarts.
struct drain_node {
  node_id node; ///< empty: the one with the ledger
  bool drained = true;
  std::string why; ///< for people; at most drain_why_bytes_max
  COPPICE_STRUCT(drain_node, 1, node, 2, drained, 3, why)
};
inline constexpr std::size_t drain_why_bytes_max = 200;

/// Outputs that are built and not committed (INV-12).
struct get_partials {
  inhash after = {};          ///< only those behind it: the last one seen
  std::uint32_t limit = 1000; ///< at most rows_max
  COPPICE_STRUCT(get_partials, 1, after, 2, limit)
};
/// An output that is kept where it was built, as `/held/…` has it there.
struct kept_output {
  nix::store_path path;
  coppice::nar_hash nar_hash;
  std::uint64_t nar_size = 0;
  COPPICE_STRUCT(kept_output, 1, path, 2, nar_hash, 3, nar_size)
};
struct partial_output {
  inhash key;
  fence token; ///< under which it may be dropped
  nix::store_path drv;
  node_id node;
  std::vector<nix::store_path> outputs;
  std::uint64_t nar_bytes = 0;
  std::string doing; ///< of its STORE_UPLOADER; empty if there is none now
  std::vector<kept_output> kept; ///< the same outputs
  std::string url;               ///< of its CACHE_SERVER; empty if others cannot reach it
  COPPICE_STRUCT(partial_output, 1, key, 2, token, 3, drv, 4, node, 5, outputs, 6, nar_bytes, 7, doing, 8, kept, 9, url)
};
/// A machine, and why it does not do what is asked of it.
struct machine_reason {
  node_id node;
  std::string why;
  COPPICE_STRUCT(machine_reason, 1, node, 2, why)
};
struct partial_outputs {
  std::vector<partial_output> rows;   ///< by inhash
  std::vector<machine_reason> silent; ///< machines that did not answer: what they keep is not among the rows
  COPPICE_STRUCT(partial_outputs, 1, rows, 2, silent)
};
/// Upload now instead of after the pause.
struct retry_partial {
  inhash key;
  node_id node = {}; ///< that keeps them; empty: the one with the ledger
  COPPICE_STRUCT(retry_partial, 1, key, 2, node)
};
/// Give up the built outputs, so that somebody may build them again; `stale` if the token is not the one they have.
struct drop_partial {
  inhash key;
  fence token;
  node_id node = {}; ///< as above
  COPPICE_STRUCT(drop_partial, 1, key, 2, token, 3, node)
};

/// The store has lost this path, whatever it says: nothing is answered with it any more, and whoever needs it has it
/// built, or uploaded, again.
struct mark_gone {
  nix::store_path path;
  COPPICE_STRUCT(mark_gone, 1, path)
};

/// Why is it not built yet? A derivation, or an output of one.
struct explain_query {
  nix::store_path path;
  COPPICE_STRUCT(explain_query, 1, path)
};
/// Rows of each list in an explanation; counts say how many there are.
inline constexpr std::size_t explained_rows_max = 10;
struct awaited_input {
  nix::store_path drv;
  step_life life = step_life::unknown;
  COPPICE_STRUCT(awaited_input, 1, drv, 2, life)
};
/// What one request says of it.
struct step_view {
  request_id request;
  std::string client;
  nix::store_path drv;
  inhash key;
  step_life life = step_life::unknown;
  bool upstream = false;                ///< it is fetched from an upstream cache
  std::vector<awaited_input> inputs;    ///< that it waits for, or that failed, at most explained_rows_max
  std::uint64_t inputs_count = 0;       ///< how many it waits for
  std::uint64_t ready_ahead = 0;        ///< if ready: steps of the request that come before it
  std::int64_t retry_in_ms = 0;         ///< if delayed
  std::string system;
  std::vector<std::string> features;
  bool io_bound = false;
  std::optional<running_step> running;
  coppice::failure failure = failure::none;
  std::string text;                     ///< why it failed, or waits
  std::vector<nix::store_path> outputs; ///< if it is there
  COPPICE_STRUCT(step_view, 1, request, 2, client, 3, drv, 4, key, 5, life, 6, upstream, 7, inputs, 8, inputs_count, 9,
                 ready_ahead, 10, retry_in_ms, 11, system, 12, features, 13, io_bound, 14, running, 15, failure, 16,
                 text, 17, outputs)
};
/// GRAPH's answer; nothing if the derivation is not in its closure.
struct step_answer {
  std::optional<step_view> view;
  COPPICE_STRUCT(step_answer, 1, view)
};

/// INSPECTOR -> ALLOCATOR: what would become of a job like this?
struct placing_query {
  inhash key;
  std::string system;
  std::vector<std::string> features;
  bool io_bound = false;
  COPPICE_STRUCT(placing_query, 1, key, 2, system, 3, features, 4, io_bound)
};
struct placing {
  std::optional<queued_job> job;        ///< if it waits for a machine
  std::uint64_t total = 0;              ///< that wait for the same kind of slot
  std::vector<queued_job> ahead;        ///< the first of those before it, at most explained_rows_max
  std::vector<machine_reason> machines; ///< all of them; no reason: it could take it now
  COPPICE_STRUCT(placing, 1, job, 2, total, 3, ahead, 4, machines)
};

struct explanation {
  std::optional<nix::store_path> drv; ///< none if nobody here has heard of the path
  std::vector<step_view> requests; ///< open ones that know it, at most explained_rows_max
  std::uint64_t requests_count = 0;
  std::optional<ledger::lock_state> lock;
  std::optional<placing> place;              ///< if it is to be built
  std::vector<ledger::attempt_row> attempts; ///< newest first, at most explained_rows_max
  std::vector<ledger::failure_row> failures; ///< that are not forgotten
  std::vector<path_info> stored;             ///< the path that was asked for, if the store has it
  std::int64_t at_ms = 0;                    ///< wall clock of the node
  COPPICE_STRUCT(explanation, 1, drv, 2, requests, 3, requests_count, 4, lock, 5, place, 6, attempts, 7, failures, 8,
                 stored, 9, at_ms)
};

} // namespace coppice
