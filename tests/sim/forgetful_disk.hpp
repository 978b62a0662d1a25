#pragma once

#include "tests/sim/dice.hpp"

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace coppice::sim {

/// A directory that forgets, when its power fails, what was not synced: contents without fsync, names whose directory
/// was not. Sees the program's own fsync, fdatasync and syncfs; what is below it is read and written by nobody else.
class forgetful_disk {
public:
  /// All that is there now is durable.
  explicit forgetful_disk(std::filesystem::path root);
  ~forgetful_disk();
  forgetful_disk(const forgetful_disk&) = delete;
  forgetful_disk& operator=(const forgetful_disk&) = delete;

  /// The power fails now: what is on the disk when it is back is decided. Of what was not synced each change survives
  /// with this chance.
  void cut_power(dice& d, double survives);
  /// The power is back: the directory is as it was decided, whatever has been done to it since. Nothing if it did not
  /// fail.
  void power_back();
  /// At the n-th sync from now on, before it, `dies` is called, which cuts the power; that sync fails.
  void fail_at_sync(std::uint64_t n, std::function<void()> dies);
  void never_fail() { syncs_left_.reset(); }

  /// The program syncs this descriptor, whosever disk its file is on; false if that fails.
  static bool sync(int fd, bool whole_file_system);

  std::uint64_t syncs = 0, forgotten = 0;

private:
  struct inode {
    mode_t mode = 0;
    std::string bytes;                    ///< a file's contents, or a link's target
    std::map<std::string, ino_t> entries; ///< a directory's
    bool filled = false;                  ///< bytes or entries are durable
  };
  void sync_all();
  void sync_one(const std::filesystem::path& path);
  void note(const std::filesystem::path& path);
  inode survivor(const std::filesystem::path& present, ino_t number, dice& d, double survives);
  void restore(const std::filesystem::path& present, ino_t number, const std::filesystem::path& into, dice& d,
               double survives);

  const std::filesystem::path root_;
  std::map<ino_t, inode> durable_;
  std::optional<std::uint64_t> syncs_left_;
  std::function<void()> dies_;
  bool cut_ = false;
};

} // namespace coppice::sim
