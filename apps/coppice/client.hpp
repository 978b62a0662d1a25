#pragma once

#include "apps/common/console.hpp"
#include "apps/common/farm.hpp"
#include "apps/coppice/transfer.hpp"

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

namespace coppice::app {

/// What following a request does when the user presses Ctrl-C.
enum class on_interrupt : std::uint8_t {
  cancel, ///< the request is cancelled, and followed to its end
  leave   ///< the request goes on without us
};

/// One run of the client: its way to the farm, and what it shows meanwhile.
class client {
public:
  /// `signals` must have been made first in main.
  client(rt::signals& signals, const farm_options& options, bool quiet);

  /// Does `work`, which may use all below, on a thread of its own, and gives the exit code; an error is printed.
  int run(const std::function<expected<int>()>& work);

  /// Finds the farm; before any of ask() and follow().
  expected<void> connect();

  template <class Reply, class Message>
  expected<Reply> ask(const std::string& target, const std::string& method, const Message& message) {
    auto reply = farm_->ask<Reply>(target, method, message);
    if (reply) back();
    return reply;
  }

  /// Shows the request until it is over and prints how it ended. `shutdown` if left by Ctrl-C.
  expected<request_progress> follow(const request_id& id, on_interrupt what);

  /// "[doing …]" at the bottom from now on.
  void doing(const std::string& what);
  /// "[doing … 3/9 · 1.2 MB]" from now on.
  void transferring(const std::string& what);

  /// What a followed request wants built, so that it is shown as a forest.
  void know(step_graph graph);
  /// When a followed request was submitted, wall clock.
  void began(std::int64_t submitted_ms);

  console& screen() { return console_; }
  transfer_progress& transfers() { return transfers_; }
  /// True after Ctrl-C.
  const std::atomic<bool>& interrupted() const { return transfers_.stop; }

private:
  using clock = std::chrono::steady_clock;
  void redraw();
  void back();
  void take(const request_progress& news);
  expected<request_progress> poll(const request_id& id, std::uint64_t after);
  expected<void> cancel(const request_id& id);
  void ask_durations();

  rt::signals& signals_;
  farm_options options_;
  console console_;
  transfer_progress transfers_;
  std::optional<farm> farm_;
  std::mutex mutex_; // of all below
  display display_;
  std::string doing_;
  bool transferring_ = false, following_ = false;
};

} // namespace coppice::app
