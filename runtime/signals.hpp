#pragma once

#include <chrono>
#include <optional>

/// Signals as values that main waits for; no handler ever runs.
namespace coppice::rt {

class signals {
public:
  /// Blocks TERM, INT, HUP and USR1 in this thread and all that it starts later, and ignores PIPE. Make it first in
  /// main, before any thread.
  signals();
  /// Waits for one of them; USR1 is wake()'s.
  int wait();
  /// The same for at most `d`; empty when time is over.
  std::optional<int> wait_for(std::chrono::milliseconds d);
  /// Makes wait() return SIGUSR1, from any thread: how the root supervisor's end reaches main.
  static void wake();
};

} // namespace coppice::rt
