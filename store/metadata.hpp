#pragma once

#include "store/nar_files.hpp"
#include "store/tree_walk.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>

/// The one place that gives store objects their metadata.
namespace coppice::store {

/// A handle to an entry itself, be it a link, a special file or unreadable: good for metadata alone.
inline expected<rt::unique_fd> open_metadata(const tree_cursor& at, const std::string& name) {
  rt::unique_fd fd{::openat(at.fd(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
  if (!fd) return at.failed("open", name);
  return fd;
}

/// A path that reaches the file behind an O_PATH handle, for calls that take no such handle.
inline std::string handle_path(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

/// Sets mtime 1, this mode (ignored for symbolic links) and, for root, the owner. `failed` makes the error.
template <class Failed>
expected<void> set_metadata(int fd, mode_t mode, const owner& to, Failed failed) {
  struct stat st;
  if (::fstat(fd, &st) != 0) return failed("stat");
  // The owner first: changing it afterwards could drop mode bits.
  if (::geteuid() == 0 && (st.st_uid != to.uid || st.st_gid != to.gid) &&
      ::fchownat(fd, "", to.uid, to.gid, AT_EMPTY_PATH) != 0)
    return failed("chown");
  if (!S_ISLNK(st.st_mode) && (st.st_mode & 07777) != mode && ::chmod(handle_path(fd).c_str(), mode) != 0)
    return failed("chmod");
  const timespec times[2] = {{0, UTIME_OMIT}, {1, 0}};
  if ((st.st_mtim.tv_sec != 1 || st.st_mtim.tv_nsec != 0) && ::utimensat(fd, "", times, AT_EMPTY_PATH) != 0)
    return failed("set the time of");
  return {};
}

} // namespace coppice::store
