#include "store/files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <cstring>
#include <set>

namespace coppice::store {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view temporary_prefix = ".tmp-";

/// An error that names the file, right after the system call that failed.
tl::unexpected<error> failed(std::string_view verb, const fs::path& file) {
  const int number = errno;
  return tl::unexpected(system_error(number, "cannot " + std::string{verb} + " " + file.string()));
}

expected<rt::unique_fd> open_file(const fs::path& file, int flags) {
  rt::unique_fd fd{::open(file.c_str(), flags | O_CLOEXEC)};
  if (!fd) return failed("open", file);
  return fd;
}

bool has_name(int fd) {
  struct stat st;
  return ::fstat(fd, &st) == 0 && st.st_nlink > 0;
}

} // namespace

error system_error(int error_number, std::string_view tried) {
  const auto code = error_number == ENOSPC || error_number == EDQUOT ? ec::storage_full
                    : error_number == ENOENT                         ? ec::missing
                                                                     : ec::io;
  return {code, std::string{tried} + ": " + std::generic_category().message(error_number)};
}

expected<void> write_all(int fd, std::string_view bytes, const fs::path& name) {
  while (!bytes.empty()) {
    const auto written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("write", name);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

expected<std::size_t> read_at(int fd, std::uint64_t offset, std::span<char> into, const fs::path& name) {
  std::size_t done = 0;
  while (done < into.size()) {
    const auto got = ::pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed("read", name);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

expected<std::string> read_file(const fs::path& file, std::uint64_t bytes_max) {
  auto fd = open_file(file, O_RDONLY);
  if (!fd) return tl::unexpected(fd.error());
  std::string bytes;
  constexpr std::size_t block = 64 * 1024;
  while (true) {
    const auto had = bytes.size();
    bytes.resize(had + block);
    const auto got = ::read(fd->get(), bytes.data() + had, block);
    if (got < 0 && errno != EINTR) return failed("read", file);
    bytes.resize(had + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (bytes.size() > bytes_max)
      return fail(ec::limit_exceeded, file.string() + " is larger than " + std::to_string(bytes_max) + " bytes");
    if (got == 0) return bytes;
  }
}

expected<void> make_directories(const fs::path& dir) {
  struct stat st;
  if (::stat(dir.c_str(), &st) == 0) {
    if (S_ISDIR(st.st_mode)) return {};
    return fail(ec::io, dir.string() + " is not a directory");
  }
  const auto parent = dir.parent_path();
  if (parent.empty()) {
    if (::mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) return failed("make directory", dir);
    return {};
  }
  if (parent == dir) return make_directories(fs::path{dir}.remove_filename());
  if (auto made = make_directories(parent); !made) return made;
  if (::mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) return failed("make directory", dir);
  return sync_directory(parent);
}

expected<void> sync_directory(const fs::path& dir) {
  auto fd = open_file(dir, O_RDONLY | O_DIRECTORY);
  if (!fd) return tl::unexpected(fd.error());
  if (::fsync(fd->get()) != 0) return failed("sync", dir);
  return {};
}

expected<void> sync_file_system(const fs::path& path) {
  auto fd = open_file(path, O_RDONLY);
  if (!fd) return tl::unexpected(fd.error());
  if (::syncfs(fd->get()) != 0) return failed("sync the file system of", path);
  return {};
}

expected<temporary_file> temporary_file::create(const fs::path& dir) {
  while (true) {
    auto name = (dir / (std::string{temporary_prefix} + "XXXXXX")).string();
    rt::unique_fd fd{::mkostemp(name.data(), O_CLOEXEC)};
    if (!fd) return failed("create a temporary file in", dir);
    // The lock tells sweepers that we live; one may have been faster.
    ::flock(fd.get(), LOCK_EX); // ignored: without locks nothing is swept either
    if (!has_name(fd.get())) continue;
    temporary_file file{std::move(fd), std::move(name)};
    if (::fchmod(file.fd_.get(), 0644) != 0) return failed("chmod", file.file_);
    return file;
  }
}

temporary_file::temporary_file(temporary_file&& other) noexcept
    : fd_(std::move(other.fd_)), file_(std::exchange(other.file_, {})), size_(other.size_) {}

temporary_file::~temporary_file() {
  if (!file_.empty()) ::unlink(file_.c_str()); // ignored: the next sweep finds it
}

expected<void> temporary_file::write(std::string_view bytes) {
  size_ += bytes.size();
  return write_all(fd_.get(), bytes, file_);
}

expected<void> temporary_file::sync() {
  if (::fsync(fd_.get()) != 0) return failed("sync", file_);
  return {};
}

expected<void> temporary_file::place(const fs::path& file) {
  if (::rename(file_.c_str(), file.c_str()) != 0) return failed("rename " + file_.string() + " to", file);
  file_.clear();
  struct stat st;
  if (::stat(file.c_str(), &st) != 0) return failed("read back", file);
  if (static_cast<std::uint64_t>(st.st_size) != size_)
    return fail(ec::corrupt, file.string() + " has " + std::to_string(st.st_size) + " bytes instead of the " +
                                 std::to_string(size_) + " written");
  return {};
}

expected<void> sweep_temporary_files(const fs::path& dir) {
  std::error_code failure;
  for (fs::directory_iterator it{dir, failure}, end; !failure && it != end; it.increment(failure)) {
    const auto& file = it->path();
    if (!file.filename().string().starts_with(temporary_prefix)) continue;
    rt::unique_fd fd{::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
    if (!fd || ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) continue; // ignored: gone, or being written
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) return failed("remove", file);
  }
  if (failure) return tl::unexpected(system_error(failure.value(), "cannot list " + dir.string()));
  return {};
}

expected<void> replace_files(const std::vector<std::pair<fs::path, std::string>>& files) {
  std::set<fs::path> dirs;
  for (const auto& [file, bytes] : files) {
    const auto dir = file.parent_path();
    auto temporary = temporary_file::create(dir);
    if (!temporary) return tl::unexpected(temporary.error());
    auto done = temporary->write(bytes).and_then([&] { return temporary->sync(); }).and_then([&] {
      return temporary->place(file);
    });
    if (!done) return done;
    dirs.insert(dir);
  }
  for (const auto& dir : dirs)
    if (auto synced = sync_directory(dir); !synced) return synced;
  return {};
}

expected<void> replace_file(const fs::path& file, std::string_view bytes) {
  return replace_files({{file, std::string{bytes}}});
}

expected<void> remove_file(const fs::path& file) {
  if (::unlink(file.c_str()) == 0) return sync_directory(file.parent_path());
  if (errno == ENOENT || errno == ENOTDIR) return {};
  return failed("remove", file);
}

expected<std::uint64_t> free_bytes(const fs::path& path) {
  struct statvfs st;
  if (::statvfs(path.c_str(), &st) != 0) return failed("ask for free space at", path);
  return static_cast<std::uint64_t>(st.f_bavail) * st.f_frsize;
}

} // namespace coppice::store
