#pragma once

#include "messages/reflect.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace coppice {

/// Where an actor is in its life, as its stable reference sees it.
enum class actor_state : std::uint8_t {
  starting = 0,   ///< declared, no incarnation serves yet
  up = 1,         ///< an incarnation serves
  restarting = 2, ///< the last incarnation ended; its supervisor waits out the backoff
  stopped = 3,    ///< ended for good
  last_ = stopped
};
std::string_view to_string(actor_state s);

/// What the admin tool shows of one actor; read from atomics, so that it works when the actor is stuck.
struct actor_status {
  std::string path;          ///< from the root, e.g. "/lock/ledger"
  std::string kind;          ///< e.g. "ledger"; empty while nobody serves
  actor_state state = actor_state::starting;
  std::uint64_t restarts = 0;
  std::string last_exit;     ///< reason of the last end; empty if none yet
  std::int64_t uptime_ms = 0; ///< of the present incarnation
  std::uint64_t mailbox = 0;  ///< messages waiting
  std::uint64_t handled = 0;  ///< by the present incarnation
  std::uint64_t in_flight = 0; ///< requests forwarded and not yet answered
  std::uint64_t buffered = 0;  ///< messages held while restarting
  std::int64_t busy_ms = 0;    ///< how long the present handler has been running, 0 if idle
  std::string doing;           ///< in the actor's own words, e.g. "zlib-adler32.c.o: building, 3 s"
  std::int64_t restart_in_ms = 0; ///< until its supervisor starts it again, 0 if it serves or nobody waits with it
  COPPICE_STRUCT(actor_status, 1, path, 2, kind, 3, state, 4, restarts, 5, last_exit, 6, uptime_ms, 7, mailbox, 8,
                 handled, 9, in_flight, 10, buffered, 11, busy_ms, 12, doing, 13, restart_in_ms)
};

} // namespace coppice
