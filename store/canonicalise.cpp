#include "store/metadata.hpp"
#include "store/nar_files.hpp"
#include "store/tree_walk.hpp"

#include <sys/xattr.h>

#include <set>

namespace coppice::store {

namespace {

class canonicaliser final : public tree_visitor {
public:
  canonicaliser(const owner& to, std::optional<uid_t> built_by) : to_(to), built_by_(built_by) {}

  expected<void> leaf(const tree_entry& entry) override {
    const auto type = entry.st.st_mode & S_IFMT;
    if (type != S_IFREG && type != S_IFLNK)
      return fail(ec::invalid, "file '" + entry.path() + "' has an unsupported type");
    if (entry.st.st_nlink > 1 && !seen_.insert({entry.st.st_dev, entry.st.st_ino}).second) return {};
    return visit(entry, (entry.st.st_mode & S_IXUSR) != 0 ? 0555 : 0444);
  }
  expected<void> before(const tree_entry& directory) override { return visit(directory, 0555); }
  expected<void> after(const tree_entry&) override { return {}; }

private:
  expected<void> visit(const tree_entry& entry, mode_t mode) {
    if (entry.is_top() && !S_ISLNK(entry.st.st_mode) && (entry.st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
      return suspicious(entry);
    if (built_by_ && entry.st.st_uid != *built_by_) return suspicious(entry);
    const auto fd = open_metadata(entry.at, entry.name);
    if (!fd) return tl::unexpected(fd.error());
    const auto failed = [&](std::string_view verb) { return entry.at.failed(verb, entry.name); };
    return remove_attributes(fd->get(), entry.st, failed).and_then([&] {
      return set_metadata(fd->get(), mode, to_, failed);
    });
  }

  static tl::unexpected<error> suspicious(const tree_entry& entry) {
    return fail(ec::invalid,
                "suspicious ownership or permission on '" + entry.path() + "'; rejecting this build output");
  }

  template <class Failed>
  static expected<void> remove_attributes(int fd, const struct stat& st, Failed failed) {
    const auto path = handle_path(fd);
    const auto size = ::listxattr(path.c_str(), nullptr, 0);
    if (size < 0 && errno != ENOTSUP) return failed("list the extended attributes of");
    if (size <= 0) return {};
    if (!S_ISLNK(st.st_mode) && ::chmod(path.c_str(), 0700) != 0) return failed("chmod"); // user.* needs write access
    std::string names(static_cast<std::size_t>(size), '\0');
    const auto got = ::listxattr(path.c_str(), names.data(), names.size());
    if (got < 0) return failed("list the extended attributes of");
    names.resize(static_cast<std::size_t>(got));
    for (std::size_t at = 0; at < names.size();) {
      const std::string name = names.c_str() + at;
      at += name.size() + 1;
      if (name == "security.selinux") continue; // the system's policy, which nobody may take away
      if (::removexattr(path.c_str(), name.c_str()) != 0 && errno != ENODATA)
        return failed("remove attribute " + name + " of");
    }
    return {};
  }

  owner to_;
  std::optional<uid_t> built_by_;
  std::set<std::pair<dev_t, ino_t>> seen_; // files with several names, by their first
};

} // namespace

expected<void> canonicalise(const std::vector<std::filesystem::path>& trees, const owner& to,
                            std::optional<uid_t> built_by) {
  canonicaliser visitor{to, built_by};
  for (const auto& tree : trees)
    if (auto walked = walk_tree(tree, visitor, tree_depth_max); !walked) return walked;
  return {};
}

expected<void> canonicalise(const std::filesystem::path& tree, const owner& to, std::optional<uid_t> built_by) {
  return canonicalise(std::vector{tree}, to, built_by);
}

} // namespace coppice::store
