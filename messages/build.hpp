#pragma once

#include "messages/ids.hpp"
#include "messages/reflect.hpp"
#include "messages/shared.hpp"
#include "messages/store_path.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace coppice {

/// sha256 of an uncompressed NAR.
using nar_hash = bytes_id<struct nar_hash_tag, 32>;

/// Why an attempt, a step or a request did not succeed (reliability.md 4.12). Numbers are on the wire.
enum class failure : std::uint8_t {
  none = 0,               ///< it did succeed, or is not over yet
  build_failed = 1,       ///< the builder ended with an exit code or a signal, or left no output
  timed_out = 2,          ///< longer than the total time allowed
  silent = 3,             ///< no output for longer than allowed
  log_limit = 4,          ///< wrote more log than allowed
  output_limit = 5,       ///< an output is larger than allowed
  hash_mismatch = 6,      ///< a fixed output is not what was specified
  output_rejected = 7,    ///< an output breaks a rule: file type, permissions, references
  unsupported = 8,        ///< the derivation asks for what this farm does not do
  unplaceable = 9,        ///< no machine of the farm has this system or these features
  inputs_missing = 10,    ///< an input could not be fetched; nobody's fault, tried again
  store_down = 11,        ///< the store could not be read or written; tried again
  infra = 12,             ///< node died, worker crashed, lease lost; tried again elsewhere
  poisoned = 13,          ///< took its machine or worker down too often
  cancelled = 14,         ///< nobody wants it any more
  dependency_failed = 15, ///< an input failed: not attempted; computed, never stored
  oom = 16,               ///< used more memory than allowed
  pids = 17,              ///< started more processes than allowed
  disk_limit = 18,        ///< wrote more, or made more files, than allowed
  not_deterministic = 19, ///< built again for comparison, an output came out different from the registered one
  last_ = not_deterministic
};
/// The class of a failure as scripts see it, e.g. "hash_mismatch"; "success" for none.
std::string_view to_string(failure f);
/// True if trying again, here or elsewhere, may succeed without anybody changing anything.
bool is_transient(failure f);

/// What is known of a store object once it is in the store: what a narinfo says, and where its blob is.
struct path_info {
  nix::store_path path;
  coppice::nar_hash nar_hash;
  std::uint64_t nar_size = 0;
  std::vector<nix::store_path> references; ///< sorted, itself included if it refers to itself
  std::optional<nix::store_path> deriver;
  std::string ca;                          ///< content address, e.g. "fixed:r:sha256:…", or empty
  blob_id blob;                            ///< sha256 of the compressed file
  std::uint64_t blob_size = 0;
  generation gen;                          ///< the life of the blob's name that is meant; INV-8
  COPPICE_STRUCT(path_info, 1, path, 2, nar_hash, 3, nar_size, 4, references, 5, deriver, 6, ca, 7, blob, 8, blob_size,
                 9, gen)
};

/// One output of a realised inhash.
struct realised_output {
  std::string name; ///< e.g. "out"
  path_info info;
  COPPICE_STRUCT(realised_output, 1, name, 2, info)
};

/// What the builder of one attempt used; all zero if none ran.
struct build_usage {
  std::int64_t wall_ms = 0;
  std::int64_t cpu_user_ms = 0, cpu_system_ms = 0; ///< of its control group, else of all that was waited for
  std::int64_t memory_peak_bytes = 0; ///< of its control group, files in memory included, else of its largest process
  std::uint64_t log_bytes = 0;
  COPPICE_STRUCT(build_usage, 1, wall_ms, 2, cpu_user_ms, 3, cpu_system_ms, 4, memory_peak_bytes, 5, log_bytes)
};

/// Who asks the ledger: a session is a node's lease, the nonce one actor of it.
struct holder {
  session_id session;
  coppice::nonce nonce;
  COPPICE_STRUCT(holder, 1, session, 2, nonce)
};

/// An input that is large enough to matter where it lies.
struct heavy_input {
  nix::store_path path;
  std::uint64_t bytes = 0; ///< as a NAR
  node_id node;            ///< which built it; empty: none of the farm, or nobody knows
  COPPICE_STRUCT(heavy_input, 1, path, 2, bytes, 3, node)
};
inline constexpr std::size_t heavy_inputs_max = 16; ///< the largest ones
inline constexpr std::uint64_t heavy_input_bytes_min = std::uint64_t{1} << 20;

/// One inhash to be built, as placed and assigned: all that an executor needs besides the inputs' bytes.
struct job {
  inhash key;
  fence token;                         ///< the coordinator's, granted by acquire; the worker draws its own by start
  nix::store_path drv;
  shared<std::string> aterm;           ///< the derivation's text
  shared<std::vector<nix::store_path>> inputs; ///< the input paths it names: sources, and outputs of its input derivations
  std::string system;
  std::vector<std::string> features;   ///< requiredSystemFeatures
  std::int32_t priority = 0;           ///< higher goes first; lent by the most urgent request
  std::uint32_t critical_path = 0;     ///< steps above it in its graph, the longest way: more goes first
  request_id request;                  ///< for whom it was acquired; a hint for fair shares and logs
  bool io_bound = false;               ///< waits for network or disk rather than computes: takes an I/O slot
  std::vector<realised_output> compare = {}; ///< not empty: only to compare with these, which are registered; keeps nothing
  bool again = false;                  ///< it was placed under this token before, and nobody has heard of it since
  std::vector<heavy_input> heavy = {}; ///< the largest of its inputs, at most heavy_inputs_max
  COPPICE_STRUCT(job, 1, key, 2, token, 3, drv, 4, aterm, 5, inputs, 6, system, 7, features, 8, priority, 9,
                 critical_path, 10, request, 11, io_bound, 12, compare, 13, again, 14, heavy)
};

/// What a client asked for, as the ledger keeps it.
struct request_root {
  nix::store_path drv;
  std::vector<std::string> outputs; ///< wanted output names; empty means all
  COPPICE_STRUCT(request_root, 1, drv, 2, outputs)
};

/// What happens to a request whose client leaves.
enum class on_disconnect : std::uint8_t {
  proceed = 0, ///< it goes on; only an explicit cancel ends it
  cancel = 1,  ///< it is cancelled when its client has not been heard of for `client_grace`
  last_ = cancel
};

struct request_body {
  std::vector<request_root> roots;
  blob_id closure;                ///< the blob with the whole derivation closure (messages/closure.hpp)
  std::int32_t priority = 0;
  bool keep_going = false;        ///< a failed step ends only what depends on it
  on_disconnect when_client_leaves = on_disconnect::proceed;
  bool rebuild = false;           ///< roots that are there are built again and compared; their failures are not remembered
  COPPICE_STRUCT(request_body, 1, roots, 2, closure, 3, priority, 4, keep_going, 5, when_client_leaves, 6, rebuild)
};

enum class request_state : std::uint8_t { open = 0, succeeded = 1, failed = 2, cancelled = 3, last_ = cancelled };
std::string_view to_string(request_state s);

/// A step's state as its graph sees it.
enum class step_state : std::uint8_t {
  planned = 0,       ///< waits for inputs
  queued = 1,        ///< waits for a lock or a worker
  building = 2,      ///< has a worker
  built = 3,         ///< was built while this request waited, and is published
  reused = 4,        ///< was there already
  failed = 5,        ///< failed by itself
  not_attempted = 6, ///< an input failed, or the request ended first
  partial = 7,       ///< built; its machine cannot upload it yet
  last_ = partial
};
std::string_view to_string(step_state s);

/// What became of one root.
struct root_result {
  nix::store_path drv;
  std::vector<realised_output> outputs; ///< empty unless realised
  coppice::failure failure = failure::none;
  COPPICE_STRUCT(root_result, 1, drv, 2, outputs, 3, failure)
};

/// A step that failed by itself (not by a dependency).
struct failed_step {
  nix::store_path drv;
  inhash key;
  fence token; ///< of the attempt
  coppice::failure failure = failure::none;
  std::string reason;   ///< for people: what was tried on what
  std::string log_tail; ///< last lines of its log, at most log_tail_bytes_max
  COPPICE_STRUCT(failed_step, 1, drv, 2, key, 3, token, 4, failure, 5, reason, 6, log_tail)
};

/// The terminal answer of a request; stored, and repeated to whoever asks (INV-5).
struct request_result {
  request_state state = request_state::open;
  std::vector<root_result> roots;
  std::vector<failed_step> failures; ///< at most failures_told_max of them
  std::uint64_t built = 0;           ///< steps that were built for it or while it waited
  std::uint64_t reused = 0;          ///< steps that were there already
  std::string reason;                ///< why it failed as a whole, e.g. "the closure blob is lost"
  COPPICE_STRUCT(request_result, 1, state, 2, roots, 3, failures, 4, built, 5, reused, 6, reason)
};

/// Bytes of a log's end kept with a failed attempt in the ledger.
inline constexpr std::size_t log_tail_bytes_max = 4096;
/// Failed steps told in a result; the attempts of all others stay in the history.
inline constexpr std::size_t failures_told_max = 100;

} // namespace coppice
