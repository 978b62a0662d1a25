#include "actors/build/build_watch.hpp"

#include "runtime/fd.hpp"
#include "runtime/process_tree.hpp"
#include "store/files.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <string_view>

namespace coppice::actors {
namespace {

/// Bytes of a block of stat(2).
constexpr std::uint64_t stat_block_bytes = 512;

std::string figures(std::uint64_t is, std::uint64_t max, const char* setting) {
  return std::to_string(is) + ", more than the " + std::to_string(max) + " allowed (" + setting + ")";
}

/// Has something that was `then` and is `now` grown by what was `left`?
bool grown(std::uint64_t now, std::uint64_t then, std::uint64_t left) {
  return now > then && now - then >= left;
}

std::uint64_t left(std::uint64_t max, std::uint64_t used) {
  return max > used ? max - used : 0;
}

class counter {
public:
  counter(std::uint64_t bytes_max, std::uint64_t files_max, build_look& into)
      : bytes_max_(bytes_max), files_max_(files_max), into_(into) {}

  void count(int at, const char* name, int depth) {
    const int fd = ::openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return note_failure(); // the builder removed or closed it
    std::unique_ptr<DIR, int (*)(DIR*)> dir{::fdopendir(fd), ::closedir};
    if (!dir) {
      ::close(fd);
      return;
    }
    while (const auto* entry = enough() ? nullptr : ::readdir(dir.get())) {
      const std::string_view entry_name = entry->d_name;
      if (entry_name == "." || entry_name == "..") continue;
      struct ::stat s {};
      if (::fstatat(fd, entry->d_name, &s, AT_SYMLINK_NOFOLLOW) < 0) {
        note_failure();
        continue;
      }
      ++into_.files;
      into_.disk_bytes += static_cast<std::uint64_t>(s.st_blocks) * stat_block_bytes / std::max<nlink_t>(links(s), 1);
      if (S_ISDIR(s.st_mode) && depth < count_depth_max) count(fd, entry->d_name, depth + 1);
    }
  }

private:
  void note_failure() {
    if (errno == EACCES) ++into_.hidden;
  }
  static nlink_t links(const struct ::stat& s) { return S_ISDIR(s.st_mode) ? 1 : s.st_nlink; }
  bool enough() const {
    return (bytes_max_ > 0 && into_.disk_bytes > bytes_max_) || (files_max_ > 0 && into_.files > files_max_);
  }

  std::uint64_t bytes_max_, files_max_;
  build_look& into_;
};

} // namespace

bool build_watch::below_floor(const build_look& l) const {
  return l.disk_free_bytes < limits_.disk_free_min;
}

bool build_watch::wants_count(const build_look& l, time_point now) const {
  if (limits_.disk_bytes_max == 0 && limits_.files_max == 0 && !below_floor(l)) return false;
  if (!counted_) return true;
  const auto age = now - counted_at_;
  if (age < count_share_max * std::chrono::milliseconds{counted_->took_ms}) return false;
  const auto& c = *counted_;
  return age >= count_interval || below_floor(l) || (limits_.files_max > 0 && l.files_used == 0) ||
         (limits_.disk_bytes_max > 0 &&
          grown(l.disk_used_bytes, c.disk_used_bytes, left(limits_.disk_bytes_max, c.disk_bytes))) ||
         (limits_.files_max > 0 && grown(l.files_used, c.files_used, left(limits_.files_max, c.files)));
}

// Half of the time in which the disk, at the rate of late, has filled by what is left.
void build_watch::set_pause(const build_look& l, time_point now) {
  pause_ = std::min(2 * pause_, pause_max);
  if (before_ && now > before_->second && l.disk_used_bytes > before_->first) {
    const double grew = static_cast<double>(l.disk_used_bytes - before_->first);
    auto room = left(l.disk_free_bytes, limits_.disk_free_min);
    if (limits_.disk_bytes_max > 0 && counted_)
      room = std::min(room, left(limits_.disk_bytes_max,
                                 counted_->disk_bytes + left(l.disk_used_bytes, counted_->disk_used_bytes)));
    const std::chrono::duration<double, std::milli> since = now - before_->second;
    const double until_full = static_cast<double>(room) / grew * since.count();
    if (until_full / 2 < static_cast<double>(pause_.count()))
      pause_ = std::max(pause_min, std::chrono::milliseconds{static_cast<std::int64_t>(until_full / 2)});
  }
  before_.emplace(l.disk_used_bytes, now);
}

std::optional<build_watch::verdict> build_watch::on_look(const build_look& l, time_point now, const std::string& drv) {
  if (l.counted) {
    counted_ = l;
    counted_at_ = now;
  }
  set_pause(l, now);
  const auto over = [](std::uint64_t is, std::uint64_t max) { return max > 0 && is > max; };
  const auto builder = "builder for '" + drv + "' ";
  if (l.pids_reached || over(l.processes, limits_.processes_max))
    return verdict{failure::pids, builder + "was ended for starting more than the " +
                                      std::to_string(limits_.processes_max) +
                                      " processes and threads allowed (limits.processes_max)"};
  if (!limits_.group_memory && over(l.memory_bytes, limits_.memory_bytes_max))
    return verdict{failure::oom, builder + "was ended for its memory in bytes: " +
                                     figures(l.memory_bytes, limits_.memory_bytes_max, "limits.memory_bytes_max")};
  if (!l.counted) return {};
  if (over(l.disk_bytes, limits_.disk_bytes_max))
    return verdict{failure::disk_limit, builder + "was ended for the bytes it wrote: at least " +
                                            figures(l.disk_bytes, limits_.disk_bytes_max, "limits.disk_bytes_max")};
  if (over(l.files, limits_.files_max))
    return verdict{failure::disk_limit, builder + "was ended for the files it made: at least " +
                                            figures(l.files, limits_.files_max, "limits.files_max")};
  // what it hides may be what fills the disk
  if (below_floor(l) && (l.disk_bytes > limits_.disk_free_min || l.hidden > 0))
    return verdict{failure::infra,
                   builder + "was ended for want of disk: " + std::to_string(l.disk_free_bytes) +
                       " bytes are free, less than limits.reserve.disk_free_min, and it uses " +
                       std::to_string(l.disk_bytes) +
                       (l.hidden > 0 ? " and has closed " + std::to_string(l.hidden) + " directories to the daemon"
                                     : "")};
  return {};
}

void count_tree(const std::filesystem::path& dir, std::uint64_t bytes_max, std::uint64_t files_max, build_look& into) {
  counter{bytes_max, files_max, into}.count(AT_FDCWD, dir.c_str(), 0);
  into.counted = true;
}

expected<build_look> look_at(const watched_build& build, const build_watch& watch, build_watch::time_point now) {
  const auto began = std::chrono::steady_clock::now();
  build_look l;
  struct ::statvfs s {};
  if (::statvfs(build.dir.c_str(), &s) < 0)
    return tl::unexpected(store::system_error(errno, "cannot ask the file system of " + build.dir.string()));
  l.disk_free_bytes = s.f_bavail * s.f_frsize;
  l.disk_used_bytes = (s.f_blocks - s.f_bfree) * s.f_frsize;
  l.files_used = s.f_files - s.f_ffree;
  const auto& limits = watch.limits();
  if (build.group) {
    const auto use = build.group->usage();
    l.pids_reached = use.pids_reached;
    l.memory_bytes = static_cast<std::uint64_t>(use.memory_bytes);
  }
  if (const pid_t root = build.process ? build.process->load() : 0; root > 0 && limits.looks_at_processes()) {
    const auto use = rt::use_of_tree(root);
    if (!limits.group_pids) l.processes = use.tasks;
    if (!limits.group_memory) l.memory_bytes = use.memory_bytes;
  }
  if (watch.wants_count(l, now)) count_tree(build.dir, limits.disk_bytes_max, limits.files_max, l);
  l.took_ms = std::chrono::ceil<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began).count();
  return l;
}

} // namespace coppice::actors
