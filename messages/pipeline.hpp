#pragma once

#include "messages/build.hpp"
#include "messages/ledger.hpp"

#include <map>
#include <set>

/// What the stages of the pipeline say to each other besides the ledger's transactions.
namespace coppice {

/// This node's lease, as SESSION knows it.
struct session_info {
  node_id node;
  session_id session;
  coppice::incarnation incarnation;
  COPPICE_STRUCT(session_info, 1, node, 2, session, 3, incarnation)
};

/// GRAPH -> LOCK_MANAGER: T5 without the session, which LOCK_MANAGER knows.
struct acquire_lock {
  inhash key;
  nix::store_path drv;
  request_id request;
  coppice::epoch epoch;
  coppice::nonce nonce;
  COPPICE_STRUCT(acquire_lock, 1, key, 2, drv, 3, request, 4, epoch, 5, nonce)
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

/// WORKER_POOL -> ALLOCATOR, repeated: what this machine can take now.
struct offer {
  node_id node;
  coppice::incarnation incarnation;
  std::uint32_t slots_free = 0;
  std::uint32_t slots = 0;
  std::vector<std::string> systems;
  std::vector<std::string> features;
  COPPICE_STRUCT(offer, 1, node, 2, incarnation, 3, slots_free, 4, slots, 5, systems, 6, features)
};
/// GRAPH -> ALLOCATOR: the job is no longer wanted from this graph.
struct withdraw {
  inhash key;
  fence token;
  COPPICE_STRUCT(withdraw, 1, key, 2, token)
};
/// ALLOCATOR -> GRAPH: why a job waits, when no machine known could ever take it.
struct waiting {
  inhash key;
  std::string why;
  COPPICE_STRUCT(waiting, 1, key, 2, why)
};

/// FETCHER's answer: the whole closure of the inputs is in the local store and pinned until `pin` is dropped.
struct fetched {
  std::uint64_t pin = 0;
  std::vector<path_info> closure;
  COPPICE_STRUCT(fetched, 1, pin, 2, closure)
};

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

/// How a builder's process ended.
struct build_exit {
  coppice::failure failure = failure::none;
  std::string reason;          ///< if it failed
  std::int32_t exit_code = 0;
  std::int32_t signal = 0;
  std::int64_t wall_ms = 0, cpu_user_ms = 0, cpu_system_ms = 0;
  std::int64_t memory_peak_bytes = 0;
  std::uint64_t log_bytes = 0;
  COPPICE_STRUCT(build_exit, 1, failure, 2, reason, 3, exit_code, 4, signal, 5, wall_ms, 6, cpu_user_ms, 7, cpu_system_ms,
                 8, memory_peak_bytes, 9, log_bytes)
};

/// The outputs of one attempt, packed by STORE_UPLOADER: known in full before anything is registered.
struct packed_outputs {
  std::vector<realised_output> outputs;
  std::string content_hash; ///< of a fixed output, in the algorithm and manner it declares, base 16; else empty
  bool plain_file = false;  ///< the first output is a regular file that is not executable
  COPPICE_STRUCT(packed_outputs, 1, outputs, 2, content_hash, 3, plain_file)
};

} // namespace coppice
