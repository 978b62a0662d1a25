#pragma once

#include "messages/build.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

/// What happens on a node, one typed event for each change of state, in one numbering that can be followed from any
/// number (docs/protocol.md).
namespace coppice {

/// What happened. Numbers are on the wire; new ones are appended.
enum class event_kind : std::uint8_t {
  node_started = 0,     ///< first of its numbering; text: the node's version
  request_accepted = 1, ///< text: the client's name; count: its roots
  request_ended = 2,   ///< outcome, duration_ms since it was submitted, count: steps built for it, text: why as a whole
  step_waiting = 3,    ///< for a lock or a worker: its inputs are there; text: why again, after a try
  step_started = 4,    ///< has a worker: node, token
  step_ended = 5,      ///< step says how; failure, if it failed
  attempt_started = 6, ///< node, token
  attempt_ended = 7,   ///< failure, duration_ms of the builder, text: the reason; bytes of the outputs as NARs
  upload_begun = 8,    ///< bytes of the blobs that the store lacks; told again when it is tried again
  upload_ended = 9,    ///< bytes that were put
  upload_partial = 10, ///< built, and cannot be stored yet: it is tried again
  published = 11,      ///< the binary cache serves the outputs
  substituted = 12,    ///< taken from an upstream cache; bytes as NARs
  actor_started = 13,  ///< serves for the first time
  actor_died = 14,     ///< will be started again after duration_ms; text: the reason
  actor_restarted = 15, ///< a later incarnation serves
  actor_ended = 16,     ///< ended by a fault and is not started again; text: the reason
  actor_given_up = 17,  ///< died too often; text: the reason
  actor_escalated = 18, ///< a supervisor that gave up a child ends itself; text: which child and why
  reconciled = 19,      ///< a sweep set right what events had missed; text: what, count: how many
  last_ = reconciled
};
/// Its name in texts and JSON, e.g. "attempt_ended".
std::string_view to_string(event_kind k);

/// One change of state. Fields that say nothing about its kind are empty.
struct farm_event {
  std::uint64_t seq = 0;  ///< from 1, without gaps
  std::int64_t at_ms = 0; ///< wall clock, for people
  event_kind kind = event_kind::node_started;
  request_id request;
  std::optional<nix::store_path> drv;
  inhash key;
  fence token;
  node_id node;
  std::string actor; ///< path in the tree
  coppice::failure failure = failure::none;
  step_state step = step_state::planned;
  request_state outcome = request_state::open;
  std::int64_t duration_ms = 0;
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
  std::string text; ///< at most event_text_bytes_max
  COPPICE_STRUCT(farm_event, 1, seq, 2, at_ms, 3, kind, 4, request, 5, drv, 6, key, 7, token, 8, node, 9, actor, 10,
                 failure, 11, step, 12, outcome, 13, duration_ms, 14, bytes, 15, count, 16, text)
};
inline constexpr std::size_t event_text_bytes_max = 200;
/// Events that a node keeps for those who come late, unless it is told otherwise; older ones are gone, and `lost` says how
/// many.
inline constexpr std::uint32_t farm_events_kept_max = 32'768;
/// Events in one answer; ask again for more.
inline constexpr std::uint32_t farm_events_per_page_max = 1'000;
/// Followers of one node's events that wait at once; further ones: overloaded.
inline constexpr std::size_t event_followers_max = 256;

/// Answered at once if there are events after `after`, else when something happens or `wait_ms` (at most
/// poll_wait_ms_max) is over.
struct follow_events {
  std::uint64_t stream = 0; ///< of the numbering that `after` is of; 0: whichever there is
  std::uint64_t after = 0;  ///< the last seq seen; 0 for all there are, events_from_now for none
  std::uint32_t wait_ms = 0;
  std::uint32_t limit = farm_events_per_page_max;
  COPPICE_STRUCT(follow_events, 1, stream, 2, after, 3, wait_ms, 4, limit)
};
inline constexpr std::uint64_t events_from_now = std::numeric_limits<std::uint64_t>::max();

/// How much there is of what no event tells, as it was at most ten seconds ago.
struct node_gauges {
  std::uint64_t requests_open = 0;
  std::uint64_t steps_waiting = 0;    ///< placed, and without a worker
  std::uint64_t io_steps_waiting = 0; ///< likewise, of those that take an I/O slot
  std::int64_t oldest_waiting_ms = 0; ///< since when the longest of them has waited; 0 if none does
  std::uint64_t slots_free = 0;
  std::uint64_t io_slots_free = 0;
  std::uint64_t builds_running = 0; ///< WORKERs
  std::uint64_t actors = 0;         ///< names in the tree
  COPPICE_STRUCT(node_gauges, 1, requests_open, 2, steps_waiting, 3, io_steps_waiting, 4, oldest_waiting_ms, 5,
                 slots_free, 6, io_slots_free, 7, builds_running, 8, actors)
};

struct event_page {
  node_id node;
  std::uint64_t stream = 0; ///< identifies the numbering; when it changes, the node was started again
  std::uint64_t next = 0;   ///< pass as `after` next time
  std::uint64_t lost = 0;   ///< events after `after` and before the first one here, which are no longer kept
  std::vector<farm_event> events;
  node_gauges gauges;
  COPPICE_STRUCT(event_page, 1, node, 2, stream, 3, next, 4, lost, 5, events, 6, gauges)
};

} // namespace coppice
