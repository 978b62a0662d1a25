#pragma once

#include "messages/build.hpp"
#include "store/nar_files.hpp"
#include "store/sinks.hpp"

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace coppice::store {

struct local_store_options {
  std::filesystem::path root;                    ///< holds valid/ and, unless real_dir says otherwise, store/
  std::string store_dir = "/nix/store";          ///< the logical one, which is part of every path's hash
  std::optional<std::filesystem::path> real_dir; ///< where the files really lie
  owner belongs_to;
  bool sync = true; ///< false trades safety against power loss for speed: tests
};

/// The node's own store: real files plus durable records of which of them are valid. A path is valid only after its
/// bytes were proven (INV-16) and are durable. Any number of threads may call it; one process at a time may open it.
class local_store {
public:
  /// Reads the records, finishes or undoes what a crash interrupted, sweeps staging directories.
  static expected<std::unique_ptr<local_store>> open(local_store_options options);

  /// What open() found amiss and left out: unreadable records, records whose files are gone.
  const std::vector<std::string>& problems() const { return problems_; }

  /// What is known of the path; none unless it is valid.
  std::optional<path_info> query(const nix::store_path& path) const;

  /// These paths and all they refer to, each once, references before what refers to them; `missing`, naming it, if one
  /// is not valid. Cycles other than of a path with itself are broken anywhere.
  expected<std::vector<path_info>> closure(std::span<const nix::store_path> paths) const;

  /// All valid paths.
  std::vector<nix::store_path> paths() const;

  /// Where the path's files lie, or would.
  std::filesystem::path real_path(const nix::store_path& path) const;
  /// Where all paths' files lie.
  const std::filesystem::path& real_dir() const { return real_dir_; }
  const std::string& store_dir() const { return options_.store_dir; }

  /// A fresh directory from which add_outputs can move; the caller removes it (remove_tree), or the next open().
  expected<std::filesystem::path> staging();

  /// Unpacks the NAR that `nar` writes, and makes the path valid if hash and size match `info`: `corrupt` else, and
  /// nothing is left. Valid already: succeeds without calling `nar`, or `conflict` if the NAR hash differs.
  expected<void> add_from_nar(const path_info& info, const byte_source& nar);

  /// Moves canonicalised trees (from a directory of staging()) into place and makes all of them valid in one step: a
  /// crash leaves either none or all valid. A path that is valid already with the same NAR hash keeps its files, and
  /// the tree stays where it is; with another hash nothing is moved: `conflict`.
  expected<void> add_outputs(const std::vector<std::pair<path_info, std::filesystem::path>>& outputs);

  /// Makes the path invalid, then removes its files; `conflict`, naming who, if a pin or another valid path wants it.
  expected<void> remove(const nix::store_path& path);

  /// Keeps these paths, valid or not yet, from remove() until the last copy of what it gives is gone.
  std::shared_ptr<const void> pin(std::set<nix::store_path> paths);
  /// What each pin keeps.
  std::vector<std::set<nix::store_path>> pins() const;

private:
  struct addition {
    path_info info;
    std::filesystem::path tree;
  };
  explicit local_store(local_store_options options);
  expected<void> load();
  expected<void> finish_groups();
  expected<void> load_records();
  expected<void> sweep_trees();
  void add_to_index(const path_info& info);
  expected<bool> is_valid_alike(const path_info& info) const;
  expected<void> install(std::vector<addition> additions);
  expected<void> place(const std::vector<addition>& additions, const std::filesystem::path& trash);
  expected<void> record(const std::vector<addition>& additions);
  std::filesystem::path group_file(const std::vector<addition>& additions) const;
  std::optional<std::string> wanted_by(const nix::store_path& path) const;
  std::string print(const path_info& info) const;
  expected<path_info> parse(std::string_view narinfo) const;

  local_store_options options_;
  std::filesystem::path real_dir_, valid_dir_, groups_dir_, staging_dir_;
  std::vector<std::string> problems_;
  std::atomic<std::uint64_t> installs_{0}; ///< names trash directories
  std::mutex writing_;       ///< held while files move and records change; taken before mutex_
  mutable std::mutex mutex_; ///< guards the two maps
  std::map<nix::store_path, path_info> index_;
  std::vector<std::weak_ptr<const std::set<nix::store_path>>> pins_;
};

} // namespace coppice::store
