#pragma once

#include "runtime/exposed.hpp"
#include "runtime/fd.hpp"
#include "runtime/peer.hpp"

#include <caf/monitorable_actor.hpp>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace coppice::rt {

/// Where the answers to one session's calls go; shared by the socket thread and those who answer.
struct line {
  explicit line(std::string r, std::size_t bytes = reply_bytes_max, std::uint32_t open_max = calls_per_session_max)
      : route(std::move(r)), body_bytes_max(bytes), calls_max(open_max) {}
  /// Open calls of a client; further ones: overloaded.
  static constexpr std::uint32_t calls_per_session_max = 256;
  /// Likewise of another node: as many as it may have on their way.
  static constexpr std::uint32_t calls_per_node_max = send_window::messages_max;
  const std::string route;          ///< ZeroMQ's routing id, or the name of a dialled socket
  const std::size_t body_bytes_max; ///< of a frame that is sent
  std::atomic<std::uint32_t> calls_max;
  std::shared_ptr<send_window> window = std::make_shared<send_window>();
  std::atomic<bool> alive{true};        ///< false: the session is over, answers are dropped
  std::atomic<std::uint64_t> stream{0}; ///< rises when the peer forgets its calls
  std::atomic<std::uint32_t> calls{0};  ///< open ones
};

/// An answer, or what a node says to another, on its way to the socket thread.
struct answer {
  std::shared_ptr<rt::line> line;
  std::uint64_t stream = 0;
  frame what;
  std::optional<std::size_t> windowed; ///< bytes taken from the line's window for it
};

/// From any thread to the socket thread. Bounded: each open call is answered once, and what nodes say to each other has
/// its line's window.
class outbox {
public:
  outbox();
  void post(answer x);
  std::vector<answer> take();
  /// Becomes readable when there is something to take, or wake() was called.
  int fd() const { return event_.get(); }
  void wake();
  /// Makes fd() unreadable.
  void rest();

private:
  unique_fd event_;
  std::mutex mutex_;
  std::vector<answer> answers_;
};

/// The sender of calls from other machines: a CAF actor without mailbox, whose enqueue() encodes the answer on the
/// thread of whoever gives it. No call is left without an answer: the actor's, or its reference's error, or `deadline`.
class reply_port final : public caf::monitorable_actor {
public:
  static constexpr std::size_t calls_max = 16384;          ///< open at once; further ones: overloaded

  reply_port(caf::actor_config& cfg, std::shared_ptr<outbox> out);
  /// Starts an actor of this class.
  static caf::strong_actor_ptr make(caf::actor_system& system, std::shared_ptr<outbox> out);

  const char* name() const override { return "reply-port"; }
  using caf::monitorable_actor::enqueue;
  void enqueue(caf::mailbox_element_ptr x, caf::execution_unit* eu) override;

  /// Sends a call; its answer is posted to the outbox by `deadline`.
  void call(const registry::found& to, caf::message what, const std::shared_ptr<line>& from, std::uint64_t id,
            instant deadline);
  /// Answers what is overdue.
  void sweep(instant now);
  std::size_t open() const;

private:
  struct open_call {
    std::shared_ptr<rt::line> line;
    std::uint64_t stream;
    std::uint64_t id; ///< the peer's
    bool (*encode)(const caf::type_erased_tuple&, std::string&);
    instant deadline;
  };
  void finish(const open_call& call, frame f);

  std::shared_ptr<outbox> out_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, open_call> calls_; // by our id, hence by deadline
  std::uint64_t last_ = 0;
};

} // namespace coppice::rt
