#include "tests/sim/forgetful_disk.hpp"

#include "store/nar_files.hpp"
#include "tests/support/scratch_dir.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <set>
#include <utility>

namespace coppice::sim {

namespace fs = std::filesystem;

namespace {

std::set<forgetful_disk*>& disks() {
  static std::set<forgetful_disk*> all;
  return all;
}

struct stat look_at(const fs::path& path) {
  struct stat s {};
  if (::lstat(path.c_str(), &s) != 0) s.st_mode = 0;
  return s;
}

std::string read(const fs::path& file) {
  std::ifstream in{file, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

std::map<std::string, ino_t> list(const fs::path& dir) {
  std::map<std::string, ino_t> entries;
  for (auto& e : fs::directory_iterator{dir})
    entries.emplace(e.path().filename().string(), look_at(e.path()).st_ino);
  return entries;
}

} // namespace

forgetful_disk::forgetful_disk(fs::path root) : root_(std::move(root)) {
  sync_all();
  syncs = 0;
  disks().insert(this);
}

forgetful_disk::~forgetful_disk() {
  disks().erase(this);
}

void forgetful_disk::fail_at_sync(std::uint64_t n, std::function<void()> dies) {
  syncs_left_ = n;
  dies_ = std::move(dies);
}

bool forgetful_disk::sync(int fd, bool whole_file_system) {
  std::error_code failed;
  const auto path = fs::read_symlink("/proc/self/fd/" + std::to_string(fd), failed);
  if (failed) return true;
  for (auto* disk : disks()) {
    if (path != disk->root_ && !path.native().starts_with(disk->root_.native() + "/")) continue;
    ++disk->syncs;
    if (disk->syncs_left_ && (*disk->syncs_left_)-- == 0) {
      disk->syncs_left_.reset();
      disk->dies_();
      return false;
    }
    whole_file_system ? disk->sync_all() : disk->sync_one(path);
  }
  return true;
}

/// What a name needs to be there after all: its kind, and where a link points to.
void forgetful_disk::note(const fs::path& path) {
  const auto s = look_at(path);
  auto& i = durable_[s.st_ino];
  i.mode = s.st_mode;
  if (!S_ISLNK(s.st_mode)) return;
  i.bytes = fs::read_symlink(path).string();
  i.filled = true;
}

void forgetful_disk::sync_one(const fs::path& path) {
  const auto s = look_at(path);
  if (s.st_mode == 0) return; // it has no name any more
  note(path);
  auto& i = durable_[s.st_ino];
  i.filled = true;
  if (S_ISREG(s.st_mode)) i.bytes = read(path);
  if (!S_ISDIR(s.st_mode)) return;
  i.entries = list(path);
  for (auto& [name, number] : std::map{i.entries})
    note(path / name);
}

void forgetful_disk::sync_all() {
  durable_.clear();
  sync_one(root_);
  for (auto& e : fs::recursive_directory_iterator{root_})
    sync_one(e.path());
}

// A change that is not durable survives by chance, each for itself.
forgetful_disk::inode forgetful_disk::survivor(const fs::path& present, ino_t number, dice& d, double survives) {
  auto was = durable_[number];
  const auto s = look_at(present);
  if (s.st_mode == 0 || s.st_ino != number) return was;
  inode now = was;
  now.mode = s.st_mode;
  if (S_ISREG(s.st_mode)) {
    auto bytes = read(present);
    if (was.filled && was.bytes == bytes) return now;
    if (d.chance(survives))
      now.bytes = std::move(bytes);
    else
      ++forgotten;
  } else if (S_ISDIR(s.st_mode)) {
    for (auto& [name, other] : list(present)) {
      auto known = was.entries.find(name);
      if (known != was.entries.end() && known->second == other) continue;
      if (d.chance(survives))
        now.entries[name] = other;
      else
        ++forgotten;
    }
    for (auto& [name, other] : was.entries)
      if (look_at(present / name).st_mode == 0) {
        if (d.chance(survives))
          now.entries.erase(name);
        else
          ++forgotten;
      }
  } else if (S_ISLNK(s.st_mode)) {
    now.bytes = fs::read_symlink(present).string();
  }
  return now;
}

void forgetful_disk::restore(const fs::path& present, ino_t number, const fs::path& into, dice& d, double survives) {
  const auto i = survivor(present, number, d, survives);
  if (S_ISLNK(i.mode)) return fs::create_symlink(i.bytes, into);
  if (S_ISDIR(i.mode)) {
    fs::create_directory(into);
    for (auto& [name, other] : i.entries)
      restore(present / name, other, into / name, d, survives);
  } else {
    std::ofstream{into, std::ios::binary} << i.bytes;
  }
  ::chmod(into.c_str(), i.mode & 07777); // ignored: it is ours
}

void forgetful_disk::cut_power(dice& d, double survives) {
  if (std::exchange(cut_, true)) return;
  syncs_left_.reset();
  restore(root_, look_at(root_).st_ino, root_.string() + ".after", d, survives);
}

void forgetful_disk::power_back() {
  if (!std::exchange(cut_, false)) return;
  const auto after = root_.string() + ".after", before = root_.string() + ".before";
  fs::rename(root_, before);
  fs::rename(after, root_);
  test::need(store::remove_tree(before));
  sync_all();
}

} // namespace coppice::sim

// The program's own, so that disks hear of them. What is on no such disk is only a test's, and need not be durable.
extern "C" {
int fsync(int fd) {
  if (coppice::sim::forgetful_disk::sync(fd, false)) return 0;
  errno = EIO;
  return -1;
}
int fdatasync(int fd) {
  return fsync(fd);
}
int syncfs(int fd) noexcept {
  if (coppice::sim::forgetful_disk::sync(fd, true)) return 0;
  errno = EIO;
  return -1;
}
}
