#pragma once

#include "messages/build.hpp"
#include "messages/ledger.hpp"

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <set>

/// What the stages of the pipeline say to each other besides the ledger's transactions.
namespace coppice {

/// Until when this node may run what it holds locks for (reliability.md 4.4).
struct lease_term {
  std::uint64_t term = 0;    ///< grows whenever the session is opened: locks of an earlier term may be lost; 0: it never was
  std::int64_t until_ms = 0; ///< CLOCK_BOOTTIME of this machine; lease_forever: without end
  COPPICE_STRUCT(lease_term, 1, term, 2, until_ms)
};
inline constexpr std::int64_t lease_forever = std::numeric_limits<std::int64_t>::max();

/// This node's session, as SESSION knows it.
struct session_info {
  node_id node;
  session_id session;
  coppice::incarnation incarnation;
  lease_term lease = {}; ///< as it was when this was said
  COPPICE_STRUCT(session_info, 1, node, 2, session, 3, incarnation, 4, lease)
};

/// GRAPH -> LOCK_MANAGER: T5 without the session, which LOCK_MANAGER knows.
struct acquire_lock {
  inhash key;
  nix::store_path drv;
  request_id request;
  coppice::epoch epoch;
  coppice::nonce nonce;
  bool again = false;
  COPPICE_STRUCT(acquire_lock, 1, key, 2, drv, 3, request, 4, epoch, 5, nonce, 6, again)
};
/// WORKER -> LOCK_MANAGER: T6 likewise.
struct start_attempt {
  inhash key;
  fence token;
  coppice::nonce nonce;
  COPPICE_STRUCT(start_attempt, 1, key, 2, token, 3, nonce)
};
/// WORKER -> LOCK_MANAGER: T9 likewise.
struct reclaim_lock {
  inhash key;
  nix::store_path drv;
  coppice::nonce nonce;
  bool built = false;
  COPPICE_STRUCT(reclaim_lock, 1, key, 2, drv, 3, nonce, 4, built)
};

/// LOCK_MANAGER -> WORKER: what T6 or T9 granted.
struct granted_lock {
  fence token;
  lease_term lease; ///< of the node, as it was before the ledger was asked
  COPPICE_STRUCT(granted_lock, 1, token, 2, lease)
};

/// A member's LEDGER -> the hub's, repeated: what changes of the rows that this session holds, or held, is to be told.
struct watch_ledger {
  session_id session;
  COPPICE_STRUCT(watch_ledger, 1, session)
};

/// A member -> the hub's CACHE_SERVER: where the farm's store is, and what lets its bearer write there for a while.
struct get_ticket {
  COPPICE_EMPTY_STRUCT(get_ticket)
};
struct upload_ticket {
  std::string url; ///< of the binary cache
  std::string ticket;
  COPPICE_STRUCT(upload_ticket, 1, url, 2, ticket)
};

/// How much the work on a machine is held up, in percent of the last ten seconds; 0 where the kernel does not say.
struct machine_pressure {
  std::uint32_t cpu = 0;    ///< somebody waited for a CPU
  std::uint32_t memory = 0; ///< nobody got on, for want of memory
  std::uint32_t io = 0;     ///< likewise, of the disks
  std::uint32_t load = 0;   ///< no time: runnable tasks for each CPU, times 100, over the last minute
  COPPICE_STRUCT(machine_pressure, 1, cpu, 2, memory, 3, io, 4, load)
};
/// What a machine has left for builds.
struct machine_room {
  std::uint64_t memory_bytes = 0;           ///< all it has
  std::uint64_t memory_available_bytes = 0; ///< without swapping
  std::uint64_t disk_free_bytes = 0;        ///< on the fuller of the file systems of the store and of the state
  std::string drained = {};                 ///< why an operator wants it to take no more; empty: he does not
  machine_pressure pressure = {};
  COPPICE_STRUCT(machine_room, 1, memory_bytes, 2, memory_available_bytes, 3, disk_free_bytes, 4, drained, 5, pressure)
};

/// What builds reserve of a machine while they run.
struct capacity {
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t disk_bytes = 0;
  COPPICE_STRUCT(capacity, 1, cores, 2, memory_bytes, 3, disk_bytes)
};
/// Of those that require a system feature.
struct feature_reserve {
  std::string feature;
  capacity takes;
  COPPICE_STRUCT(feature_reserve, 1, feature, 2, takes)
};
/// How a machine shares itself out among builds.
struct machine_share {
  capacity all;                              ///< no cores: it does not say, and nothing is counted
  capacity left;                             ///< reserved by nobody
  capacity each;                             ///< that a build reserves
  std::vector<feature_reserve> special = {}; ///< at least so much, if it requires the feature
  COPPICE_STRUCT(machine_share, 1, all, 2, left, 3, each, 4, special)
};

/// WORKER_POOL -> ALLOCATOR, repeated: what this machine can take now.
struct offer {
  node_id node;
  coppice::incarnation incarnation;
  std::uint32_t slots_free = 0;
  std::uint32_t slots = 0;
  std::vector<std::string> systems;
  std::vector<std::string> features;
  std::uint32_t io_slots_free = 0; ///< for jobs that are io_bound; those never take one of the others
  std::uint32_t io_slots = 0;
  std::string short_of = {};       ///< why slots that nothing runs in are not offered, e.g. for want of disk; or empty
  machine_room room = {};          ///< as it was last measured
  std::vector<std::string> mandatory_features = {}; ///< it takes only jobs that require all of these
  std::string version = {};        ///< of its software
  std::uint32_t busy = 0, io_busy = 0; ///< slots in which something runs
  machine_share share = {};
  COPPICE_STRUCT(offer, 1, node, 2, incarnation, 3, slots_free, 4, slots, 5, systems, 6, features, 7, io_slots_free, 8,
                 io_slots, 9, short_of, 10, room, 11, mandatory_features, 12, version, 13, busy, 14, io_busy, 15, share)
};
/// ALLOCATOR -> WORKER_POOL -> FETCHER: what a job that may come next will need, to be fetched when nothing else is.
/// A later one takes the place of this one.
struct prefetch {
  inhash key;
  shared<std::vector<nix::store_path>> inputs;
  COPPICE_STRUCT(prefetch, 1, key, 2, inputs)
};
/// GRAPH -> ALLOCATOR: the job is no longer wanted from this graph.
struct withdraw {
  inhash key;
  fence token;
  COPPICE_STRUCT(withdraw, 1, key, 2, token)
};
/// GRAPH -> ALLOCATOR: these jobs, whoever placed them, are wanted with this priority, too.
struct lend {
  std::vector<inhash> keys;
  std::int32_t priority = 0;
  COPPICE_STRUCT(lend, 1, keys, 2, priority)
};
/// ALLOCATOR -> GRAPH: why a job waits, when no machine known could ever take it; or, without a key, why all of the
/// graph's jobs wait just now (`why` empty: they no longer do).
struct waiting {
  inhash key;
  std::string why;
  bool offline = false; ///< a machine could that is offline
  COPPICE_STRUCT(waiting, 1, key, 2, why, 3, offline)
};

/// What a build is seen to use while it runs.
struct build_look {
  std::uint64_t disk_bytes = 0, files = 0;   ///< in its scratch, if `counted`
  bool counted = false;
  std::uint64_t disk_used_bytes = 0;         ///< of its whole file system
  std::uint64_t disk_free_bytes = 0;
  std::uint64_t files_used = 0;              ///< of its whole file system; 0 where it does not say
  std::uint64_t memory_bytes = 0;            ///< of its control group, else of all its processes; 0 if nobody looked
  std::uint64_t processes = 0;               ///< and threads, where no control group keeps the limit
  bool pids_reached = false;                 ///< its control group refused to start a process
  std::int64_t took_ms = 0;                  ///< to count
  std::uint64_t hidden = 0;                  ///< directories that the builder has closed to this process, if `counted`
  COPPICE_STRUCT(build_look, 1, disk_bytes, 2, files, 3, counted, 4, disk_used_bytes, 5, disk_free_bytes, 6, files_used,
                 7, memory_bytes, 8, processes, 9, pids_reached, 10, took_ms, 11, hidden)
};

/// FETCHER's answer: the whole closure of the inputs is in the local store and pinned for as long as anybody has `pin`;
/// or what no store has (any more), and nothing is pinned.
struct fetched {
  std::shared_ptr<const void> pin = {}; ///< inside one process: no field of the message
  std::vector<path_info> closure;
  std::vector<nix::store_path> missing = {}; ///< at most missing_told_max
  std::string why = {};                      ///< the first of them is missing
  COPPICE_STRUCT(fetched, 2, closure, 3, missing, 4, why)
};
/// What is lost beyond that is found by the next attempt.
inline constexpr std::size_t missing_told_max = 1'000;

/// SUBSTITUTER's answer: what upstream caches have. A path that is in none of the lists is in none of the caches.
struct upstream_paths {
  std::vector<path_info> found; ///< vouched for by a trusted key or by its content address; blob and generation empty
  std::vector<nix::store_path> unknown; ///< a cache did not answer, and no other has it
  std::vector<std::string> troubles;    ///< why they are unknown, a sentence for each cache, for people
  COPPICE_STRUCT(upstream_paths, 1, found, 2, unknown, 3, troubles)
};
/// GRAPH -> SUBSTITUTER: make these outputs, which upstream caches have, the realisation of the inhash.
struct substitution {
  inhash key;
  nix::store_path drv;
  std::vector<realised_output> outputs;
  COPPICE_STRUCT(substitution, 1, key, 2, drv, 3, outputs)
};

/// A member's FETCHER -> the hub's SUBSTITUTER: put these, which the farm's store has not, and what they refer to, into
/// it, if upstream caches have them.
struct upstream_wanted {
  std::vector<nix::store_path> paths; ///< at most upstream_wanted_max
  COPPICE_STRUCT(upstream_wanted, 1, paths)
};
inline constexpr std::size_t upstream_wanted_max = 1'000;

/// How a builder's process ended.
struct build_exit {
  coppice::failure failure = failure::none;
  std::string reason;          ///< if it failed
  std::int32_t exit_code = 0;
  std::int32_t signal = 0;
  build_usage usage = {};
  COPPICE_STRUCT(build_exit, 1, failure, 2, reason, 3, exit_code, 4, signal, 10, usage)
};

/// The outputs of one attempt, packed by STORE_UPLOADER: known in full before anything is registered.
struct packed_outputs {
  std::vector<realised_output> outputs;
  std::string content_hash; ///< of a fixed output, in the algorithm and manner it declares, base 16; else empty
  bool plain_file = false;  ///< the first output is a regular file that is not executable
  COPPICE_STRUCT(packed_outputs, 1, outputs, 2, content_hash, 3, plain_file)
};

} // namespace coppice
