#pragma once

#include "messages/errors.hpp"
#include "runtime/process.hpp"

/// Starting one process, for process_loop alone.
namespace coppice::rt {

/// A process that has begun to run its program.
struct spawned {
  pid_t pid = -1;
  unique_fd handle; ///< its pidfd
  unique_fd output; ///< non-blocking
  unique_fd report; ///< non-blocking; none unless asked for
  unique_fd control; ///< of its watchdog, whose number and pidfd the above are then: takes and gives watchdog_words
};

/// Starts it without copying our memory. It is killed when the calling thread ends, so that thread must outlive it.
/// Fails if any step up to and including execve does; nothing runs then. With a watchdog that is said of its own start.
expected<spawned> spawn(const process_spec& spec);

} // namespace coppice::rt
