#pragma once

#include "actors/deliver/http_server.hpp"

#include <httplib.h>

#include <string>
#include <vector>

namespace coppice::actors {

/// One connection's bytes. Time that the peer lets us wait is bounded, time that we take is not counted.
class http_stream final : public httplib::Stream {
public:
  /// `fd` is non-blocking and stays the caller's.
  http_stream(int fd, const http_limits& limits);

  /// Waits for the next request's first byte; false if none comes in time or the peer leaves.
  bool wait_for_request();
  /// The head was read: what follows is body, of any length.
  void end_head() { head_left_ = 0, in_head_ = false; }
  /// Tells the peer that no more comes, and takes what it still sends for a moment: else a reset would destroy the
  /// answer on its way.
  void linger();

  bool is_readable() const override { return true; }
  bool is_writable() const override { return !broken_; }
  using httplib::Stream::write;
  ssize_t read(char* into, std::size_t size) override;
  ssize_t write(const char* bytes, std::size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  /// None: httplib only compares it with what select() can take, which is not used here.
  socket_t socket() const override { return -1; }

private:
  using ms = std::chrono::milliseconds;
  /// One direction's patience: stall_max at once, and in all what the bytes moved have earned on top of it.
  struct pace {
    ms waited{0};
    std::uint64_t bytes = 0;
  };
  bool wait(short events, pace& p);
  bool fill();

  const int fd_;
  const http_limits limits_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0; // of what is in the buffer
  std::size_t head_left_ = 0;
  bool in_head_ = true;
  bool broken_ = false;
  pace in_, out_;
};

} // namespace coppice::actors
