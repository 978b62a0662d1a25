#include "store/local_store.hpp"

#include "nix/hash.hpp"
#include "store/files.hpp"
#include "store/path_records.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace coppice::store {

namespace fs = std::filesystem;

namespace {

/// A directory of staging() that goes with its owner.
class scratch {
public:
  explicit scratch(fs::path dir) : dir_(std::move(dir)) {}
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;
  ~scratch() { remove_tree(dir_); } // ignored: what is left is swept at the next open
  const fs::path& dir() const { return dir_; }

private:
  fs::path dir_;
};

bool is_there(const fs::path& file) {
  struct stat st;
  return ::lstat(file.c_str(), &st) == 0;
}

} // namespace

std::filesystem::path local_store::real_path(const nix::store_path& path) const {
  return real_dir_ / path.base_name();
}

std::optional<path_info> local_store::query(const nix::store_path& path) const {
  std::lock_guard lock{mutex_};
  const auto at = index_.find(path);
  if (at == index_.end()) return std::nullopt;
  return at->second;
}

std::vector<nix::store_path> local_store::paths() const {
  std::lock_guard lock{mutex_};
  std::vector<nix::store_path> all;
  all.reserve(index_.size());
  for (const auto& [path, info] : index_)
    all.push_back(path);
  return all;
}

std::shared_ptr<const void> local_store::pin(std::set<nix::store_path> paths) {
  std::shared_ptr<const std::set<nix::store_path>> pin{new std::set<nix::store_path>{std::move(paths)}};
  std::lock_guard lock{mutex_};
  std::erase_if(pins_, [](auto& p) { return p.expired(); });
  pins_.push_back(pin);
  return pin;
}

std::vector<std::set<nix::store_path>> local_store::pins() const {
  std::lock_guard lock{mutex_};
  std::vector<std::set<nix::store_path>> held;
  for (const auto& p : pins_)
    if (auto pin = p.lock()) held.push_back(*pin);
  return held;
}

expected<std::vector<path_info>> local_store::closure(std::span<const nix::store_path> paths) const {
  std::lock_guard lock{mutex_};
  struct step {
    const path_info* info;
    std::size_t next = 0;
  };
  std::vector<path_info> result;
  std::set<nix::store_path> seen;
  std::vector<step> way;
  auto go = [&](const nix::store_path& path) -> expected<void> {
    if (!seen.insert(path).second) return {};
    const auto at = index_.find(path);
    if (at == index_.end()) return fail(ec::missing, path.to_string(options_.store_dir) + " is not in the local store");
    way.push_back({&at->second});
    return {};
  };
  for (const auto& path : paths) {
    if (auto gone = go(path); !gone) return tl::unexpected(gone.error());
    while (!way.empty()) {
      auto& [info, next] = way.back();
      if (next < info->references.size()) {
        if (auto gone = go(info->references[next++]); !gone) return tl::unexpected(gone.error());
      } else {
        result.push_back(*info);
        way.pop_back();
      }
    }
  }
  return result;
}

expected<fs::path> local_store::staging() {
  auto name = (staging_dir_ / "XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr)
    return tl::unexpected(system_error(errno, "cannot make a directory in " + staging_dir_.string()));
  return fs::path{name};
}

expected<bool> local_store::is_valid_alike(const path_info& info) const {
  const auto valid = query(info.path);
  if (valid && valid->nar_hash != info.nar_hash)
    return fail(ec::conflict, info.path.to_string(options_.store_dir) + " is valid with NAR hash " +
                                  valid->nar_hash.to_string() + ", not " + info.nar_hash.to_string());
  return valid.has_value();
}

expected<void> local_store::add_from_nar(const path_info& info, const byte_source& nar) {
  const auto valid = is_valid_alike(info);
  if (!valid) return tl::unexpected(valid.error());
  if (*valid) return {};
  const auto dir = staging();
  if (!dir) return tl::unexpected(dir.error());
  const scratch staged{*dir};
  const auto tree = *dir / "tree";

  const auto name = info.path.to_string(options_.store_dir);
  nix::hasher hasher;
  auto proven = [&](const byte_sink& unpack) {
    return nar([&](std::string_view bytes) -> expected<void> {
      hasher.update(bytes);
      if (hasher.size() > info.nar_size)
        return fail(ec::corrupt,
                    "the NAR of " + name + " is larger than the " + std::to_string(info.nar_size) + " bytes expected");
      return unpack(bytes);
    });
  };
  if (auto restored = restore_path(tree, proven, options_.belongs_to); !restored) return restored;
  if (hasher.size() != info.nar_size)
    return fail(ec::corrupt, "the NAR of " + name + " has " + std::to_string(hasher.size()) + " bytes instead of " +
                                 std::to_string(info.nar_size));
  if (const coppice::nar_hash found{hasher.finish().sha256()}; found != info.nar_hash)
    return fail(ec::corrupt,
                "the NAR of " + name + " has sha256 " + found.to_string() + ", expected " + info.nar_hash.to_string());
  return install({{info, tree}});
}

expected<void> local_store::add_outputs(const std::vector<std::pair<path_info, fs::path>>& outputs) {
  std::vector<addition> additions;
  for (const auto& [info, tree] : outputs)
    additions.push_back({info, tree});
  return install(std::move(additions));
}

expected<void> local_store::install(std::vector<addition> additions) {
  const scratch trash{staging_dir_ / ("trash-" + std::to_string(++installs_))}; // emptied after the lock: may take long
  if (options_.sync)
    if (auto synced = sync_file_system(staging_dir_); !synced) return synced;

  std::lock_guard writing{writing_};
  std::vector<addition> fresh;
  for (auto& a : additions) {
    const auto valid = is_valid_alike(a.info);
    if (!valid) return tl::unexpected(valid.error());
    if (!*valid) fresh.push_back(std::move(a));
  }
  if (fresh.empty()) return {};
  auto done = place(fresh, trash.dir()).and_then([&] { return record(fresh); });
  if (done) {
    for (const auto& a : fresh)
      add_to_index(a.info);
    return {};
  }
  // Nothing was valid before, so nothing is now: the records first, then whatever got into place.
  auto undo = [&](const expected<void>& undone) {
    if (!undone) done.error().what += "; and " + undone.error().what;
  };
  undo(remove_file(group_file(fresh)));
  for (const auto& a : fresh)
    undo(remove_file(valid_dir_ / a.info.path.base_name()));
  for (const auto& a : fresh)
    undo(remove_tree(real_path(a.info.path)));
  return done;
}

/// Moves trees to where they belong; what lay there without being valid goes to `trash`, which is made if needed.
expected<void> local_store::place(const std::vector<addition>& additions, const fs::path& trash) {
  for (const auto& a : additions) {
    const auto target = real_path(a.info.path), stale = valid_dir_ / a.info.path.base_name();
    if (is_there(stale)) // it must not vouch for the new tree
      if (auto removed = remove_file(stale); !removed) return removed;
    if (is_there(target)) {
      if (::mkdir(trash.c_str(), 0700) < 0 && errno != EEXIST)
        return tl::unexpected(system_error(errno, "cannot make " + trash.string()));
      if (auto moved = move_tree(target, trash / a.info.path.base_name()); !moved) return moved;
    }
    if (auto moved = move_tree(a.tree, target); !moved) return moved;
  }
  return options_.sync ? sync_directory(real_dir_) : expected<void>{};
}

/// Makes trees that are in place and durable valid. One file is written in one step; several are preceded by a file
/// that holds them all, which finish_groups() reads after a crash.
expected<void> local_store::record(const std::vector<addition>& additions) {
  std::vector<std::pair<fs::path, std::string>> records;
  std::string all;
  for (const auto& a : additions) {
    records.emplace_back(valid_dir_ / a.info.path.base_name(), print(a.info));
    all += records.back().second;
  }
  if (records.size() == 1) return replace_files(records);
  const auto group = group_file(additions);
  return replace_file(group, all).and_then([&] { return replace_files(records); }).and_then([&] {
    return remove_file(group);
  });
}

fs::path local_store::group_file(const std::vector<addition>& additions) const {
  return groups_dir_ / additions.front().info.path.base_name();
}

/// Who keeps the path from being removed, if anybody does.
std::optional<std::string> local_store::wanted_by(const nix::store_path& path) const {
  for (const auto& p : pins_)
    if (auto pin = p.lock(); pin && pin->contains(path)) return "a build or a download";
  for (const auto& [other, info] : index_)
    if (other != path && std::binary_search(info.references.begin(), info.references.end(), path))
      return other.to_string(options_.store_dir);
  return std::nullopt;
}

expected<void> local_store::remove(const nix::store_path& path) {
  const auto dir = staging();
  if (!dir) return tl::unexpected(dir.error());
  const scratch trash{*dir};
  std::lock_guard writing{writing_};
  {
    std::lock_guard lock{mutex_};
    if (const auto who = wanted_by(path))
      return fail(ec::conflict, "cannot remove " + path.to_string(options_.store_dir) + ": " + *who + " wants it");
    index_.erase(path);
  }
  if (auto removed = remove_file(valid_dir_ / path.base_name()); !removed) return removed;
  if (!is_there(real_path(path))) return {};
  return move_tree(real_path(path), trash.dir() / path.base_name());
}

} // namespace coppice::store
