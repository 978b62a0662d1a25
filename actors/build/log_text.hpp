#pragma once

#include "messages/build.hpp"

#include <deque>
#include <string>
#include <string_view>

namespace coppice::actors {

/// Reads a build's log as it comes and keeps its end; uses a few kilobytes whatever comes.
class log_text {
public:
  /// Bytes of one line that are kept; the rest of it is left out.
  static constexpr std::size_t line_bytes_max = 1024;

  void feed(std::string_view bytes);
  /// The last line that is not blank, cleaned; unfinished if it has no end yet.
  std::string last_line() const;
  /// The last phase that the builder told (stdenv's setPhase); empty if none.
  const std::string& phase() const { return phase_; }
  /// The last lines, cleaned, at most log_tail_bytes_max bytes in all.
  std::string tail() const;

private:
  // cleaned a byte becomes at most three
  static_assert(3 * line_bytes_max < log_tail_bytes_max);
  void finish_line();

  std::string line_; ///< unfinished; at most line_bytes_max
  std::string last_line_, phase_;
  std::deque<std::string> lines_;
  std::size_t lines_bytes_ = 0;
};

} // namespace coppice::actors
