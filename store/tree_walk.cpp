#include "store/tree_walk.hpp"

#include "store/files.hpp"
#include "store/nar_files.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace coppice::store {

namespace {

/// Opens a directory without following links or crossing mounts (bind mounts included, where the kernel can tell).
int open_subdirectory(int parent, const char* name) {
  constexpr int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  struct open_how how {};
  how.flags = flags;
  how.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
  const auto fd = ::syscall(SYS_openat2, parent, name, &how, sizeof how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(fd);
  return ::openat(parent, name, flags); // an old kernel, or a seccomp filter that does not know the call
}

struct close_directory {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

} // namespace

expected<tree_cursor> tree_cursor::at_parent_of(const std::filesystem::path& top) {
  tree_cursor cursor;
  const auto normal = std::filesystem::absolute(top).lexically_normal();
  cursor.start_ = normal.parent_path().string();
  cursor.top_name_ = normal.filename().string();
  if (cursor.top_name_.empty() || cursor.top_name_ == "." || cursor.top_name_ == "..")
    return fail(ec::invalid, "'" + top.string() + "' does not name an entry of a directory");
  cursor.here_.reset(::open(cursor.start_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!cursor.here_) return tl::unexpected(system_error(errno, "cannot open " + cursor.start_));
  return cursor;
}

std::string tree_cursor::path_of(const std::string& name) const {
  auto path = start_;
  for (const auto& step : above_)
    path += "/" + step.name;
  return path + "/" + name;
}

tl::unexpected<error> tree_cursor::failed(std::string_view verb, const std::string& name) const {
  const int number = errno;
  if (number == EXDEV) return fail(ec::io, path_of(name) + " is a mount point");
  return tl::unexpected(system_error(number, "cannot " + std::string{verb} + " " + path_of(name)));
}

expected<void> tree_cursor::enter(const std::string& name) {
  struct stat here;
  if (::fstat(fd(), &here) != 0) return failed("stat the directory of", name);
  rt::unique_fd below{open_subdirectory(fd(), name.c_str())};
  if (!below) return failed("open", name);
  above_.push_back({name, here.st_dev, here.st_ino});
  here_ = std::move(below);
  return {};
}

expected<std::string> tree_cursor::leave() {
  auto left = std::move(above_.back());
  above_.pop_back();
  rt::unique_fd above{::openat(fd(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC)};
  struct stat st;
  if (!above || ::fstat(above.get(), &st) != 0) return failed("open the directory of", left.name);
  if (st.st_dev != left.device || st.st_ino != left.inode)
    return fail(ec::io, path_of(left.name) + " was moved while it was read");
  here_ = std::move(above);
  return std::move(left.name);
}

expected<std::vector<std::string>> tree_cursor::names() const {
  rt::unique_fd copy{::openat(fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!copy) return failed("open", ".");
  std::unique_ptr<DIR, close_directory> dir{::fdopendir(copy.get())};
  if (!dir) return failed("list", ".");
  copy.release();
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const auto* entry = ::readdir(dir.get());
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return failed("list", ".");
  std::sort(names.begin(), names.end());
  return names;
}

expected<void> walk_tree(const std::filesystem::path& top, tree_visitor& visitor, std::size_t depth_max) {
  auto cursor = tree_cursor::at_parent_of(top);
  if (!cursor) return tl::unexpected(cursor.error());

  struct open_directory {
    struct stat st;
    std::vector<std::string> names;
    std::size_t next = 0;
  };
  std::vector<open_directory> open;
  auto visit = [&](const std::string& name) -> expected<void> {
    struct stat st;
    if (::fstatat(cursor->fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return cursor->failed("stat", name);
    if (!S_ISDIR(st.st_mode)) return visitor.leaf({*cursor, name, st});
    if (open.size() >= depth_max)
      return fail(ec::limit_exceeded,
                  cursor->path_of(name) + " is more than " + std::to_string(depth_max) + " directories deep");
    return visitor.before({*cursor, name, st}).and_then([&] { return cursor->enter(name); }).and_then([&] {
      return cursor->names().map([&](std::vector<std::string> names) { open.push_back({st, std::move(names)}); });
    });
  };

  if (auto visited = visit(cursor->top_name()); !visited) return visited;
  while (!open.empty()) {
    auto& directory = open.back();
    expected<void> done;
    if (directory.next < directory.names.size()) {
      const auto name = std::move(directory.names[directory.next++]);
      done = visit(name);
    } else {
      done = cursor->leave().and_then([&](const std::string& name) {
        return visitor.after({*cursor, name, directory.st});
      });
      open.pop_back();
    }
    if (!done) return done;
  }
  return {};
}

} // namespace coppice::store
