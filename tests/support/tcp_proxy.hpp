#pragma once

#include "runtime/fd.hpp"

#include <arpa/inet.h>
#include <catch2/catch.hpp>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

namespace coppice::test {

/// A network that does what a test says, between clients and a server on this machine.
class tcp_proxy {
public:
  enum class way : std::uint8_t { up, down }; ///< to the server, to the client
  enum class act : std::uint8_t { cut, flip, drip, hold };
  /// What becomes of one connection once so many bytes went that way: it is cut; the next byte is flipped; every byte
  /// waits for 20 ms from then on; nothing passes any more.
  struct fault {
    way where = way::down;
    std::uint64_t after = 0;
    act what = act::cut;
    bool again = false; ///< a flip: after as many bytes once more
  };

  explicit tcp_proxy(int to) : to_(to) {
    listener_ = rt::unique_fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    auto a = address(0);
    socklen_t size = sizeof a;
    REQUIRE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
    REQUIRE(::listen(listener_.get(), 64) == 0);
    REQUIRE(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&a), &size) == 0);
    port_ = ntohs(a.sin_port);
    acceptor_ = std::thread{[this] { accept_all(); }};
  }
  ~tcp_proxy() {
    stopping_ = true;
    acceptor_.join();
    for (auto& t : carriers_)
      t.join();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  /// For the connection that comes next, or after those that are told of already.
  void next(fault f) {
    std::lock_guard lock{mutex_};
    coming_.push_back(f);
  }
  /// For all connections that nothing else is told of.
  void always(std::optional<fault> f) {
    std::lock_guard lock{mutex_};
    always_ = f;
  }
  std::size_t connections() const { return connections_; }
  /// Bytes that went to clients.
  std::uint64_t down() const { return down_; }

private:
  static sockaddr_in address(int port) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(static_cast<std::uint16_t>(port));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
  }
  void accept_all() {
    while (!stopping_) {
      pollfd p{listener_.get(), POLLIN, 0};
      if (::poll(&p, 1, 10) <= 0) continue;
      rt::unique_fd client{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
      rt::unique_fd server{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
      const auto a = address(to_);
      if (!client || ::connect(server.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) != 0) continue;
      ++connections_;
      std::lock_guard lock{mutex_};
      auto f = always_;
      if (!coming_.empty()) {
        f = coming_.front();
        coming_.pop_front();
      }
      carriers_.emplace_back([this, f, c = std::move(client), s = std::move(server)] { carry(c.get(), s.get(), f); });
    }
  }
  void carry(int client, int server, std::optional<fault> f) {
    std::array<std::uint64_t, 2> passed{};
    while (!stopping_) {
      pollfd p[2] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      if (::poll(p, 2, 10) <= 0) continue;
      for (auto i : {0u, 1u})
        if (p[i].revents && !pass(i ? server : client, i ? client : server, i ? way::down : way::up, passed[i], f))
          return;
    }
  }
  bool pass(int from, int to, way where, std::uint64_t& passed, std::optional<fault>& f) {
    char bytes[16 * 1024];
    const bool mine = f && f->where == where;
    const auto left = mine ? f->after - std::min(passed, f->after) : sizeof bytes;
    if (left == 0 && f->what == act::cut) return false;
    if (left == 0 && f->what == act::hold) return std::this_thread::sleep_for(std::chrono::milliseconds{10}), true;
    if (left == 0 && f->what == act::drip) std::this_thread::sleep_for(std::chrono::milliseconds{20});
    const auto n = ::recv(from, bytes, std::clamp<std::uint64_t>(left, 1, sizeof bytes), 0);
    if (n <= 0) return false;
    if (left == 0 && f->what == act::flip) {
      bytes[0] = static_cast<char>(bytes[0] ^ 1);
      passed = 0;
      if (!f->again) f.reset();
    }
    passed += static_cast<std::uint64_t>(n);
    if (where == way::down) down_ += static_cast<std::uint64_t>(n);
    return deliver(to, {bytes, static_cast<std::size_t>(n)});
  }
  bool deliver(int to, std::string_view bytes) {
    while (!bytes.empty()) {
      const auto sent = ::send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN) return false;
      bytes.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(sent, 0)));
      pollfd p{to, POLLOUT, 0};
      if (sent < 0 && (stopping_ || ::poll(&p, 1, 10) < 0)) return false;
    }
    return true;
  }

  const int to_;
  int port_ = 0;
  rt::unique_fd listener_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::size_t> connections_{0};
  std::atomic<std::uint64_t> down_{0};
  std::mutex mutex_; ///< over what follows
  std::deque<fault> coming_;
  std::optional<fault> always_;
  std::list<std::thread> carriers_;
  std::thread acceptor_;
};

} // namespace coppice::test
