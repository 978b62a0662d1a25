#include "actors/deliver/http_stream.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace coppice::actors {

namespace {

constexpr std::size_t buffer_bytes = 64 * 1024;
constexpr std::chrono::milliseconds linger_max{1'000};
constexpr std::size_t linger_bytes_max = 64 * 1024 * 1024;

/// True if the descriptor is ready, or in an error that the next call on it will tell.
bool poll_for(int fd, short events, std::chrono::milliseconds time) {
  auto until = std::chrono::steady_clock::now() + time;
  pollfd p{fd, events, 0};
  for (;;) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    int n = ::poll(&p, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000)));
    if (n >= 0 || errno != EINTR) return n > 0;
  }
}

template <class Name>
void address_of(int fd, Name name, std::string& ip, int& port) {
  sockaddr_storage a{};
  socklen_t size = sizeof a;
  char host[NI_MAXHOST], service[NI_MAXSERV];
  if (name(fd, reinterpret_cast<sockaddr*>(&a), &size) != 0 ||
      ::getnameinfo(reinterpret_cast<sockaddr*>(&a), size, host, sizeof host, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return; // the peer is gone: the next read says so
  ip = host;
  port = std::atoi(service);
}

} // namespace

http_stream::http_stream(int fd, const http_limits& limits) : fd_(fd), limits_(limits), buffer_(buffer_bytes) {}

bool http_stream::wait_for_request() {
  in_head_ = true;
  head_left_ = limits_.head_bytes_max;
  in_ = out_ = {};
  if (begin_ < end_) return true;
  return poll_for(fd_, POLLIN, limits_.idle_max) && fill();
}

bool http_stream::wait(short events, pace& p) {
  auto earned = std::chrono::milliseconds(p.bytes / std::max<std::uint64_t>(1, limits_.bytes_per_second_min) * 1000);
  auto patience = std::min(limits_.stall_max, limits_.stall_max + earned - p.waited);
  if (patience <= ms{0}) return false;
  auto since = std::chrono::steady_clock::now();
  bool ready = poll_for(fd_, events, patience);
  p.waited += std::chrono::ceil<ms>(std::chrono::steady_clock::now() - since);
  return ready;
}

bool http_stream::fill() {
  for (;;) {
    auto n = ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (n > 0) {
      begin_ = 0;
      end_ = static_cast<std::size_t>(n);
      in_.bytes += end_;
      return true;
    }
    bool again = n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK);
    if (!again || !wait(POLLIN, in_)) break;
  }
  broken_ = true;
  return false;
}

ssize_t http_stream::read(char* into, std::size_t size) {
  if (broken_ || (in_head_ && head_left_ == 0)) return -1;
  if (begin_ == end_ && !fill()) return -1;
  size = std::min(size, end_ - begin_);
  if (in_head_) {
    size = std::min(size, head_left_);
    head_left_ -= size;
  }
  std::memcpy(into, buffer_.data() + begin_, size);
  begin_ += size;
  return static_cast<ssize_t>(size);
}

ssize_t http_stream::write(const char* bytes, std::size_t size) {
  while (!broken_) {
    auto n = ::send(fd_, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      out_.bytes += static_cast<std::uint64_t>(n);
      return n;
    }
    bool again = errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK;
    if (!again || !wait(POLLOUT, out_)) broken_ = true;
  }
  return -1;
}

void http_stream::linger() {
  if (::shutdown(fd_, SHUT_WR) != 0) return; // the peer is gone already
  auto until = std::chrono::steady_clock::now() + linger_max;
  for (std::size_t taken = 0; taken < linger_bytes_max;) {
    auto left = std::chrono::ceil<ms>(until - std::chrono::steady_clock::now());
    if (left <= ms{0} || !poll_for(fd_, POLLIN, left)) return;
    auto n = ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return;
    if (n > 0) taken += static_cast<std::size_t>(n);
  }
}

void http_stream::get_remote_ip_and_port(std::string& ip, int& port) const {
  address_of(fd_, ::getpeername, ip, port);
}

void http_stream::get_local_ip_and_port(std::string& ip, int& port) const {
  address_of(fd_, ::getsockname, ip, port);
}

} // namespace coppice::actors
