#pragma once

#include <unistd.h>

#include <utility>

namespace coppice::rt {

/// Owns a file descriptor; -1 is none.
class unique_fd {
public:
  unique_fd() = default;
  /// Takes over `fd`.
  explicit unique_fd(int fd) : fd_(fd) {}
  unique_fd(unique_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~unique_fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  /// Closes what is owned and takes over `fd`.
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_); // ignored: Linux closes even when it reports an error
    fd_ = fd;
  }
  /// Gives up ownership.
  int release() { return std::exchange(fd_, -1); }

private:
  int fd_ = -1;
};

} // namespace coppice::rt
