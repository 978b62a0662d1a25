#pragma once

#include "nix/nar.hpp"
#include "store/sinks.hpp"

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// File trees of store objects. No symbolic link is followed and no mount point crossed below the given path, whatever
/// the tree holds; depth costs neither stack nor descriptors.
namespace coppice::store {

/// Directories inside each other in a tree; a deeper one is refused.
inline constexpr std::size_t tree_depth_max = 1024;

/// To whom store objects belong; root hands them over, other users keep them and ignore this.
struct owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

/// Streams the NAR of a tree. `invalid`, naming the file, for anything that is no file, directory or symbolic link;
/// `io` if a file changes meanwhile; `missing` if there is nothing at `real`.
expected<void> dump_path(const std::filesystem::path& real, const byte_sink& out);

/// Makes files 0444 or 0555 (by owner-x) and directories 0555, mtime 1, without extended attributes; hard links, also
/// between these trees, are kept. `invalid` if a top is writable by group or others, for special files, and, with
/// `built_by`, for anything that belongs to another user.
expected<void> canonicalise(const std::vector<std::filesystem::path>& trees, const owner& to = {},
                            std::optional<uid_t> built_by = std::nullopt);
expected<void> canonicalise(const std::filesystem::path& tree, const owner& to = {},
                            std::optional<uid_t> built_by = std::nullopt);

/// Removes a tree, read-only directories included; absent is no error. Stops at mount points with an error.
expected<void> remove_tree(const std::filesystem::path& real);

/// Renames a tree within a file system, also a read-only directory without being root. Nothing may be at `to`.
expected<void> move_tree(const std::filesystem::path& from, const std::filesystem::path& to);

/// Restores a NAR as `target`, which must not exist in its existing parent, with canonical metadata. What a failure
/// leaves is for the caller to remove; contents are not synced.
class nar_restorer final : public nix::nar_visitor {
public:
  explicit nar_restorer(const std::filesystem::path& target, const owner& to = {});
  ~nar_restorer() override;

  nix::expected<void> begin_directory() override;
  nix::expected<void> entry(std::string_view name) override;
  nix::expected<void> end_directory() override;
  nix::expected<void> regular(bool executable, std::uint64_t size) override;
  nix::expected<void> contents(std::string_view chunk) override;
  nix::expected<void> end_regular() override;
  nix::expected<void> symlink(std::string_view target) override;

  /// Whether anything was put at the target.
  bool created() const;
  /// Why the file system refused, if it did.
  const std::optional<error>& failure() const { return failure_; }

private:
  class state;
  template <class Act>
  nix::expected<void> attempt(Act act);
  std::unique_ptr<state> state_;
  std::optional<error> failure_;
};

/// Restores the NAR that `nar` writes as `target` (see nar_restorer); `corrupt` if it is none. Returns after removing
/// `target` again if anything failed.
expected<void> restore_path(const std::filesystem::path& target, const byte_source& nar, const owner& to = {});

} // namespace coppice::store
