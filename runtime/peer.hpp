#pragma once

#include "runtime/clock.hpp"
#include "runtime/envelope.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// The deciding half of a connection: no sockets, no clock.
namespace coppice::rt {

using instant = boot_clock::time_point;

/// Bounds what one key may send (INV-13): over the rate it is first told to slow down, then ignored, then banned.
class rate_limit {
public:
  struct options {
    double per_second = 2000;
    double burst = 4000;
    std::uint32_t warnings = 100; ///< messages answered by `overloaded` before they are dropped
    std::uint32_t drops = 10000;  ///< messages dropped before the ban
    std::chrono::seconds ban{60};
  };
  enum class verdict : std::uint8_t { admit, slow_down, drop, banned };

  explicit rate_limit(const options& o) : options_(o), tokens_(o.burst) {}
  /// What to do with a message that came in at `now`.
  verdict take(instant now);
  bool banned(instant now) const { return now < banned_until_; }

private:
  options options_;
  double tokens_;
  std::uint32_t excess_ = 0; ///< messages over the rate since it was last kept
  instant last_{};
  instant banned_until_{};
};

/// Bytes and messages on their way to a peer, proven by no pong yet. Thread-safe.
class send_window {
public:
  static constexpr std::size_t messages_max = 4096;
  static constexpr std::size_t bytes_max = 16 << 20;
  /// Makes room; false if the window is full: `congested`.
  bool take(std::size_t bytes);
  void give_back(std::size_t messages, std::size_t bytes);

private:
  std::mutex mutex_;
  std::size_t messages_ = 0, bytes_ = 0;
};

struct peer_options {
  std::chrono::milliseconds ping{2000}; ///< silence after which the peer is asked for a sign of life
  int liveness = 3;                     ///< so many times `ping` without one: dead
  std::uint32_t min_version = protocol_version_min;
  std::uint32_t max_version = protocol_version_max;
  node_id node;     ///< our name
  std::string text; ///< our software version
  coppice::incarnation born = {}; ///< of our process
};

/// One session, at either end of a connection: hello, heartbeats, and what is on its way to the other side.
class peer {
public:
  // effects
  struct send {
    frame what;
  };
  struct opened { ///< the other side said who it is; a node's incarnation is 0 if it is a client
    coppice::incarnation born;
    node_id node; ///< as it says; only a dialler, who knows the key, may believe it
  };
  struct refused { ///< a dialler: there will be no session on this connection
    error why;
  };
  struct dispatch { ///< a request or a cast of an open session
    rt::envelope head;
  };
  struct answered { ///< what this side asked
    rt::envelope head;
  };
  struct forget_calls {}; ///< the peer started anew: nobody waits for the answers to its former calls
  struct bad {            ///< the frame makes no sense here; to be counted
    std::string why;
  };
  struct dead {}; ///< nothing heard for too long
  using effect = std::variant<send, opened, refused, dispatch, answered, forget_calls, bad, dead>;
  using effects = std::vector<effect>;
  enum class side : std::uint8_t { listens, dials };

  peer(const peer_options& o, std::shared_ptr<send_window> window, side s = side::listens)
      : options_(o), side_(s), window_(std::move(window)) {}

  /// A dialler's first frame, to be sent now.
  frame greeting(instant now);

  /// A frame came; `body` is looked at only if it is a hello.
  effects heard(const envelope& head, std::string_view body, instant now);
  /// To be called a few times a second.
  effects tick(instant now);
  /// A reply or error, for which the window was taken, was handed to the socket.
  effects sent(std::size_t bytes);
  bool open() const { return version_ != 0; }
  /// That was agreed on; 0 before.
  std::uint32_t version() const { return version_; }

private:
  struct amount {
    std::size_t messages = 0, bytes = 0;
  };
  effects greet(std::string_view body);
  effects welcomed(std::string_view body);
  effects refuse(ec code, std::string why) const;
  effects pong(std::uint64_t id);
  effect ping();
  bool probe_due() const;

  peer_options options_;
  side side_;
  std::shared_ptr<send_window> window_;
  std::uint32_t version_ = 0; ///< agreed on; 0: no hello or welcome yet
  std::uint64_t stream_ = 0;
  instant last_heard_{};
  instant last_ping_{};
  std::uint64_t pings_ = 0;
  std::optional<std::uint64_t> probe_; ///< a ping that is not answered
  amount probed_;                      ///< what its pong will prove to have been read
  amount unproven_;                    ///< sent after it
};

} // namespace coppice::rt
