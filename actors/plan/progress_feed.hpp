#pragma once

#include "messages/client.hpp"
#include "runtime/clock.hpp"

#include <deque>
#include <map>
#include <optional>

namespace coppice::actors {

/// What clients are told of the steps of one request: the last events, numbered, and what runs now. Pure.
class progress_feed {
public:
  using time_point = rt::boot_clock::time_point;

  /// `stream` identifies the numbering.
  explicit progress_feed(std::uint64_t stream) : stream_(stream) {}

  /// Numbers the event and keeps it; the event, with its duration if a build ended.
  const step_event& tell(step_event e, time_point now);
  /// What a build that runs says of itself.
  void on_progress(const step_progress& p);
  /// Nothing runs any more.
  void end() { running_.clear(); }

  /// Something was told that who knows the events up to `after` has not seen.
  bool has_news(std::uint64_t after) const { return after != last_; }
  /// Events behind `after`, and what runs.
  request_progress since(std::uint64_t after, time_point now) const;
  /// Builds that run now, by inhash.
  const std::map<inhash, running_step>& running() const { return running_; }
  /// One of them, with how long it has been running.
  std::optional<running_step> running(const inhash& key, time_point now) const;

private:
  std::deque<step_event> events_; ///< at most events_kept_max
  std::uint64_t last_ = 0, stream_;
  std::map<inhash, running_step> running_;
  std::map<inhash, time_point> started_;
};

} // namespace coppice::actors
