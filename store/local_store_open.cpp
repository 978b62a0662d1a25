#include "store/files.hpp"
#include "store/local_store.hpp"
#include "store/path_records.hpp"

#include <sys/stat.h>

#include <algorithm>

namespace coppice::store {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t record_bytes_max = 64 << 20;

/// Files in `dir` that are not hidden, sorted.
expected<std::vector<fs::path>> entries_of(const fs::path& dir) {
  std::vector<fs::path> files;
  std::error_code failure;
  for (fs::directory_iterator it{dir, failure}, end; !failure && it != end; it.increment(failure))
    if (it->path().filename().string().front() != '.') files.push_back(it->path());
  if (failure) return tl::unexpected(system_error(failure.value(), "cannot list " + dir.string()));
  std::sort(files.begin(), files.end());
  return files;
}

/// Narinfos that follow each other; each starts with its StorePath.
std::vector<std::string_view> split_narinfos(std::string_view text) {
  constexpr std::string_view border = "\nStorePath: ";
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const auto end = text.find(border);
    const auto size = end == text.npos ? text.size() : end + 1;
    parts.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return parts;
}

} // namespace

local_store::local_store(local_store_options options) : options_(std::move(options)) {
  const auto root = fs::absolute(options_.root);
  real_dir_ = options_.real_dir ? fs::absolute(*options_.real_dir) : root / "store";
  valid_dir_ = root / "valid";
  groups_dir_ = root / "groups";
  // Where files can be renamed from: another file system than the root's, perhaps.
  staging_dir_ = options_.real_dir ? real_dir_ / ".coppice-staging" : root / "staging";
}

expected<std::unique_ptr<local_store>> local_store::open(local_store_options options) {
  std::unique_ptr<local_store> store{new local_store{std::move(options)}};
  if (auto loaded = store->load(); !loaded) return tl::unexpected(loaded.error());
  return store;
}

expected<void> local_store::load() {
  if (auto removed = remove_tree(staging_dir_); !removed) return removed;
  for (const auto& dir : {real_dir_, valid_dir_, groups_dir_, staging_dir_})
    if (auto made = make_directories(dir); !made) return made;
  for (const auto& dir : {valid_dir_, groups_dir_})
    if (auto swept = sweep_temporary_files(dir); !swept) return swept;
  return finish_groups().and_then([&] { return load_records(); }).and_then([&] {
    return sweep_trees();
  });
}

expected<void> local_store::finish_groups() {
  const auto files = entries_of(groups_dir_);
  if (!files) return tl::unexpected(files.error());
  for (const auto& file : *files) {
    const auto text = read_file(file, record_bytes_max);
    if (!text) return tl::unexpected(text.error());
    std::vector<std::pair<fs::path, std::string>> records;
    std::string problem;
    for (const auto part : split_narinfos(*text)) {
      const auto info = parse(part);
      if (!info)
        problem = info.error().what;
      else
        records.emplace_back(valid_dir_ / info->path.base_name(), part);
    }
    // A group that is damaged makes none of its paths valid: all of them or none.
    if (!problem.empty()) {
      problems_.push_back(file.string() + ": " + problem);
      records.clear();
    }
    if (auto done = replace_files(records).and_then([&] { return remove_file(file); }); !done) return done;
  }
  return {};
}

expected<void> local_store::load_records() {
  const auto files = entries_of(valid_dir_);
  if (!files) return tl::unexpected(files.error());
  for (const auto& file : *files) {
    const auto text = read_file(file, record_bytes_max);
    const auto info = text ? parse(*text) : tl::unexpected(text.error());
    struct stat st;
    std::string problem;
    if (!info)
      problem = info.error().what;
    else if (info->path.base_name() != file.filename())
      problem = "it is the record of " + info->path.to_string(options_.store_dir);
    else if (::lstat(real_path(info->path).c_str(), &st) != 0)
      problem = "its files are gone";
    if (problem.empty())
      add_to_index(*info);
    else
      problems_.push_back(file.string() + ": " + problem);
  }
  return {};
}

/// Removes trees that a crash left without a record; not from a directory that others may use as well.
expected<void> local_store::sweep_trees() {
  if (options_.real_dir) return {};
  const auto trees = entries_of(real_dir_);
  if (!trees) return tl::unexpected(trees.error());
  for (const auto& tree : *trees) {
    const auto path = nix::store_path::from_base_name(tree.filename().string());
    if (path && index_.contains(*path)) continue;
    if (auto removed = remove_tree(tree); !removed) return removed;
  }
  return {};
}

void local_store::add_to_index(const path_info& info) {
  std::lock_guard lock{mutex_};
  auto& entry = index_[info.path] = info;
  std::sort(entry.references.begin(), entry.references.end());
}

std::string local_store::print(const path_info& info) const {
  return nix::print_narinfo(to_narinfo(info), options_.store_dir);
}

expected<path_info> local_store::parse(std::string_view narinfo) const {
  return with_code(nix::parse_narinfo(narinfo, options_.store_dir), ec::corrupt).and_then(from_narinfo);
}

} // namespace coppice::store
