#pragma once

#include "apps/common/display.hpp"
#include "runtime/signals.hpp"

#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace coppice::app {

/// Standard error, with a block at its bottom if it is a terminal. Thread-safe.
class console {
public:
  explicit console(bool quiet);
  /// Removes the block.
  ~console();
  console(const console&) = delete;
  console& operator=(const console&) = delete;

  const display_options& options() const { return options_; }
  /// Lines that stay.
  void say(const std::vector<std::string>& lines);
  /// A line that stays, unless quiet.
  void note(const std::string& line);
  /// Replaces the block.
  void draw(const std::vector<std::string>& block);
  /// As large as the terminal is now.
  screen_size size() const;

private:
  void put(const std::vector<std::string>& above);

  display_options options_;
  std::mutex mutex_;
  live_block live_;
  std::vector<std::string> block_;
};

/// The size of standard output's terminal; width 0 if it is none.
screen_size output_size();

/// What attend() does besides waiting.
struct attention {
  std::function<void()> redraw;      ///< about ten times a second
  std::function<void()> interrupted; ///< at the first INT, TERM or HUP; the second ends the process with 4
};

/// Runs `work` on a thread of its own and gives its result; signals are heard meanwhile.
int attend(rt::signals& signals, const std::function<int()>& work, const attention& what);

} // namespace coppice::app
