#pragma once

#include "apps/common/cli.hpp"
#include "runtime/call.hpp"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace coppice::app {

/// The way to the farm: asks one node after the other, and again while none answers. One thread at a time.
class farm {
public:
  /// Told each time that no node answered; may be called often.
  using away_observer = std::function<void(const std::string& endpoint)>;

  /// Finds the key and the endpoints; an error says what was looked for and what to do. Once `stop` is true, nothing is
  /// asked a second time.
  static expected<farm> find(const farm_options& options, const std::atomic<bool>& stop, away_observer away = {});

  /// The answer. What nobody answers is asked again until the patience is over; `unavailable` then, `shutdown` if
  /// stopped.
  template <class Reply, class Message>
  expected<Reply> ask(const std::string& target, const std::string& method, const Message& message,
                      std::chrono::milliseconds timeout = call_timeout) {
    const auto start = clock::now();
    for (auto pause = pause_first;; pause = std::min(pause * 2, pause_max)) {
      auto failed = connect();
      if (failed) {
        auto reply = connection_->call<Reply>(target, method, message, timeout);
        answered_ = answered_ || reply;
        if (reply) return reply;
        failed = tl::unexpected(reply.error());
      }
      if (auto go_on = before_repeat(failed.error(), start, pause); !go_on) return tl::unexpected(go_on.error());
    }
  }

  /// The answer, if it comes at once: nothing is asked again.
  template <class Reply, class Message>
  expected<Reply> ask_once(const std::string& target, const std::string& method, const Message& message,
                           std::chrono::milliseconds timeout) {
    if (auto there = connect(); !there) return tl::unexpected(there.error());
    return connection_->call<Reply>(target, method, message, timeout);
  }

  /// The name of the node that is asked.
  expected<node_id> node() {
    if (auto there = connect(); !there) return tl::unexpected(there.error());
    return connection_->peer().node;
  }

  static constexpr std::chrono::milliseconds call_timeout{10'000};
  /// The patience with nodes of which none answered ever.
  static constexpr std::chrono::seconds patience_first{10};

private:
  using clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds pause_first{200}, pause_max{1'000};

  farm(const farm_options& options, const std::atomic<bool>& stop, away_observer away)
      : options_(options), stop_(&stop), away_(std::move(away)) {}
  expected<rt::credentials> look() const;
  expected<void> connect();
  expected<void> before_repeat(const error& e, clock::time_point start, std::chrono::milliseconds pause);
  std::string where() const;

  farm_options options_;
  const std::atomic<bool>* stop_;
  away_observer away_;
  rt::credentials credentials_;
  std::optional<rt::connection> connection_;
  bool answered_ = false;
};

} // namespace coppice::app
