#pragma once

#include "messages/errors.hpp"
#include "runtime/fd.hpp"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// System calls on files whose errors are values. Everything here blocks.
namespace coppice::store {

/// The error of a failed system call: `storage_full` for ENOSPC and EDQUOT, `missing` for ENOENT, else `io`. The text
/// is `tried`, ": " and the meaning of `error_number`.
error system_error(int error_number, std::string_view tried);

/// Writes all bytes at the descriptor's offset; `name` is for the error's text.
expected<void> write_all(int fd, std::string_view bytes, const std::filesystem::path& name);

/// Fills as much of `into` as the file has from `offset` on; the number of bytes. `name` is for the error's text.
expected<std::size_t> read_at(int fd, std::uint64_t offset, std::span<char> into, const std::filesystem::path& name);

/// The whole file; `limit_exceeded` if it is larger than `bytes_max`.
expected<std::string> read_file(const std::filesystem::path& file, std::uint64_t bytes_max);

/// Creates the directories that do not exist yet.
expected<void> make_directories(const std::filesystem::path& dir);

/// Makes the directory's entries (not the files' contents) survive a crash.
expected<void> sync_directory(const std::filesystem::path& dir);

/// Makes everything written so far to the file system of `path` survive a crash.
expected<void> sync_file_system(const std::filesystem::path& path);

/// A file that is being written and has no place yet; removed by the destructor unless it got one.
class temporary_file {
public:
  /// Creates one in `dir`, named ".tmp-" and six random characters.
  static expected<temporary_file> create(const std::filesystem::path& dir);
  temporary_file(temporary_file&& other) noexcept;
  temporary_file& operator=(temporary_file&&) = delete;
  ~temporary_file();

  expected<void> write(std::string_view bytes);
  /// Makes the contents durable.
  expected<void> sync();
  /// Renames it to `file`, replacing what is there, and compares the size there with what was written (INV-16:
  /// `corrupt`). The name is durable only after sync_directory.
  expected<void> place(const std::filesystem::path& file);
  /// Bytes written.
  std::uint64_t size() const { return size_; }

private:
  temporary_file(rt::unique_fd fd, std::filesystem::path file) : fd_(std::move(fd)), file_(std::move(file)) {}
  rt::unique_fd fd_;
  std::filesystem::path file_; ///< empty once it got a place
  std::uint64_t size_ = 0;
};

/// Removes the temporary files in `dir` that no living process is writing.
expected<void> sweep_temporary_files(const std::filesystem::path& dir);

/// Writes each file whole or not at all, as a crash sees it, over a temporary file next to it; durable on return.
expected<void> replace_files(const std::vector<std::pair<std::filesystem::path, std::string>>& files);
expected<void> replace_file(const std::filesystem::path& file, std::string_view bytes);

/// Removes a file durably; one that is absent is no error.
expected<void> remove_file(const std::filesystem::path& file);

/// Bytes that this process may still write to the file system of `path`.
expected<std::uint64_t> free_bytes(const std::filesystem::path& path);

} // namespace coppice::store
