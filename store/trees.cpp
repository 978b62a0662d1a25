#include "store/files.hpp"
#include "store/metadata.hpp"
#include "store/nar_files.hpp"
#include "store/tree_walk.hpp"

#include <fcntl.h>

#include <cerrno>
#include <limits>
#include <cstdio>

namespace coppice::store {

namespace fs = std::filesystem;

namespace {

class remover final : public tree_visitor {
public:
  expected<void> leaf(const tree_entry& entry) override { return unlink(entry, 0); }

  expected<void> before(const tree_entry& directory) override {
    if ((directory.st.st_mode & S_IRWXU) == S_IRWXU) return {};
    const auto fd = open_metadata(directory.at, directory.name);
    if (!fd) return tl::unexpected(fd.error());
    if (::chmod(handle_path(fd->get()).c_str(), 0700) != 0) return directory.at.failed("chmod", directory.name);
    return {};
  }

  expected<void> after(const tree_entry& directory) override { return unlink(directory, AT_REMOVEDIR); }

private:
  static expected<void> unlink(const tree_entry& entry, int flags) {
    if (::unlinkat(entry.at.fd(), entry.name.c_str(), flags) != 0 && errno != ENOENT)
      return entry.at.failed("remove", entry.name);
    return {};
  }
};

} // namespace

expected<void> remove_tree(const fs::path& real) {
  struct stat st;
  if (::lstat(real.c_str(), &st) != 0 && (errno == ENOENT || errno == ENOTDIR)) return {};
  remover visitor;
  return walk_tree(real, visitor, std::numeric_limits<std::size_t>::max()); // a builder may have made it too deep
}

expected<void> move_tree(const fs::path& from, const fs::path& to) {
  const auto failed = [&](int number) {
    return tl::unexpected(system_error(number, "cannot move " + from.string() + " to " + to.string()));
  };
  struct stat st;
  if (::lstat(to.c_str(), &st) == 0) return failed(EEXIST);
  if (::lstat(from.c_str(), &st) != 0) return failed(errno);
  if (::rename(from.c_str(), to.c_str()) == 0) return {};
  // A directory that changes its parent must be writable, as its ".." is rewritten.
  if (errno != EACCES || !S_ISDIR(st.st_mode)) return failed(errno);
  if (::chmod(from.c_str(), st.st_mode | S_IWUSR) != 0) return failed(errno);
  const int refused = ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
  if (::chmod((refused == 0 ? to : from).c_str(), st.st_mode & 07777) != 0 && refused == 0) return failed(errno);
  if (refused != 0) return failed(refused);
  return {};
}

} // namespace coppice::store
