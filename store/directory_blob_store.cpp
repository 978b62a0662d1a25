#include "store/directory_blob_store.hpp"

#include "nix/error.hpp"
#include "store/claim.hpp"
#include "store/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <set>

namespace coppice::store {

namespace fs = std::filesystem;

namespace {

constexpr const char* temporary_dir = ".tmp";

/// Makes the directory of `file` and renames the synced `temporary` to it; the name is not durable yet.
expected<void> place(temporary_file& temporary, const fs::path& file) {
  if (auto made = make_directories(file.parent_path()); !made) return made;
  return temporary.place(file);
}

class file_writer final : public blob_writer {
public:
  file_writer(fs::path dir, temporary_file temporary) : dir_(std::move(dir)), temporary_(std::move(temporary)) {}

  expected<void> write(std::string_view bytes) override { return temporary_.write(bytes); }

  expected<void> commit(const std::string& key) override {
    const auto file = dir_ / key;
    return check_blob_key(key)
        .and_then([&] { return temporary_.sync(); })
        .and_then([&] { return place(temporary_, file); })
        .and_then([&] { return sync_directory(file.parent_path()); });
  }

private:
  fs::path dir_;
  temporary_file temporary_;
};

class file_reader final : public blob_reader {
public:
  file_reader(rt::unique_fd fd, const struct stat& st, fs::path file)
      : fd_(std::move(fd))
      , size_(static_cast<std::uint64_t>(st.st_size))
      , version_(std::to_string(st.st_ino) + "-" + std::to_string(st.st_mtim.tv_sec) + "-" +
                 std::to_string(st.st_mtim.tv_nsec) + "-" + std::to_string(st.st_size))
      , file_(std::move(file)) {}

  std::uint64_t size() const override { return size_; }
  std::string version() const override { return version_; }
  expected<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
    return read_at(fd_.get(), offset, into, file_);
  }

private:
  rt::unique_fd fd_;
  std::uint64_t size_;
  std::string version_;
  fs::path file_;
};

/// The directory that holds all keys with this prefix.
fs::path dir_of_prefix(const fs::path& dir, std::string_view prefix) {
  const auto slash = prefix.rfind('/');
  return slash == prefix.npos ? dir : dir / prefix.substr(0, slash);
}

} // namespace

directory_blob_store::directory_blob_store(fs::path dir) : dir_(std::move(dir)) {}

expected<std::unique_ptr<directory_blob_store>> directory_blob_store::open_dir(const fs::path& dir,
                                                                               std::string_view store_dir) {
  std::unique_ptr<directory_blob_store> blobs{new directory_blob_store{fs::absolute(dir)}};
  auto opened = make_directories(blobs->dir_ / temporary_dir)
                    .and_then([&] { return sweep_temporary_files(blobs->dir_ / temporary_dir); })
                    .and_then([&] {
                      return claim_blobs(*blobs, store_dir,
                                         [&](const std::string& key, std::string_view bytes) -> expected<bool> {
                                           const auto there = blobs->stat(key); // no other process makes a store here
                                           if (!there) return tl::unexpected(there.error());
                                           if (*there) return false;
                                           return blobs->put(key, bytes).map([] { return true; });
                                         });
                    });
  if (!opened) return tl::unexpected(opened.error());
  return blobs;
}

expected<std::unique_ptr<blob_writer>> directory_blob_store::begin() {
  auto temporary = temporary_file::create(dir_ / temporary_dir);
  if (!temporary) return tl::unexpected(temporary.error());
  return std::make_unique<file_writer>(dir_, std::move(*temporary));
}

expected<void> directory_blob_store::put(const std::string& key, std::string_view bytes) {
  return put_all({{key, std::string{bytes}}});
}

expected<void> directory_blob_store::put_all(const std::vector<std::pair<std::string, std::string>>& blobs) {
  std::set<fs::path> dirs;
  for (const auto& [key, bytes] : blobs) {
    if (auto ok = check_blob_key(key); !ok) return ok;
    auto temporary = temporary_file::create(dir_ / temporary_dir);
    if (!temporary) return tl::unexpected(temporary.error());
    const auto file = dir_ / key;
    auto done = temporary->write(bytes).and_then([&] { return temporary->sync(); }).and_then([&] {
      return place(*temporary, file);
    });
    if (!done) return done;
    dirs.insert(file.parent_path());
  }
  for (const auto& dir : dirs)
    if (auto synced = sync_directory(dir); !synced) return synced;
  return {};
}

expected<std::unique_ptr<blob_reader>> directory_blob_store::open(const std::string& key) {
  if (auto ok = check_blob_key(key); !ok) return tl::unexpected(ok.error());
  const auto file = dir_ / key;
  rt::unique_fd fd{::open(file.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd && (errno == ENOENT || errno == ENOTDIR)) return fail(ec::missing, "there is no blob " + file.string());
  if (!fd) return tl::unexpected(system_error(errno, "cannot open " + file.string()));
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return tl::unexpected(system_error(errno, "cannot stat " + file.string()));
  if (!S_ISREG(st.st_mode)) return fail(ec::missing, "there is no blob " + file.string() + ", but something else");
  return std::make_unique<file_reader>(std::move(fd), st, file);
}

expected<std::optional<std::uint64_t>> directory_blob_store::stat(const std::string& key) {
  if (auto ok = check_blob_key(key); !ok) return tl::unexpected(ok.error());
  const auto file = dir_ / key;
  struct stat st;
  if (::stat(file.c_str(), &st) == 0) {
    if (!S_ISREG(st.st_mode)) return std::nullopt;
    return static_cast<std::uint64_t>(st.st_size);
  }
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  return tl::unexpected(system_error(errno, "cannot stat " + file.string()));
}

expected<void> directory_blob_store::remove(const std::string& key) {
  if (auto ok = check_blob_key(key); !ok) return ok;
  return remove_file(dir_ / key);
}

expected<void>
directory_blob_store::list(std::string_view prefix,
                           const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) {
  std::error_code failure;
  const auto start = dir_of_prefix(dir_, prefix);
  fs::recursive_directory_iterator it{start, failure}, end;
  if (failure == std::errc::no_such_file_or_directory) return {};
  for (; !failure && it != end; it.increment(failure)) {
    const auto key = it->path().lexically_relative(dir_).string();
    if (it->is_directory(failure)) {
      // Neither hidden directories nor those that lead nowhere are entered.
      if (key.front() == '.' || !(key + "/").starts_with(prefix.substr(0, key.size() + 1)))
        it.disable_recursion_pending();
      continue;
    }
    if (!key.starts_with(prefix) || !check_blob_key(key)) continue;
    const auto bytes = it->file_size(failure);
    if (failure == std::errc::no_such_file_or_directory)
      failure.clear(); // removed meanwhile
    else if (!failure && !each(key, bytes))
      return {};
  }
  if (failure) return tl::unexpected(system_error(failure.value(), "cannot list " + start.string()));
  return {};
}

} // namespace coppice::store
