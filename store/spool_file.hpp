#pragma once

#include "messages/errors.hpp"
#include "runtime/fd.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>

namespace coppice::store {

/// A file without a name, so that nothing of it outlives its owner.
class spool_file {
public:
  static expected<spool_file> create(const std::filesystem::path& dir);
  /// Makes the directory, or removes from it what a crash left between a file's birth and the loss of its name.
  static expected<void> prepare(const std::filesystem::path& dir);

  expected<void> write(std::string_view bytes);
  std::uint64_t size() const { return size_; }
  /// Fills as much of `into` as was written from `offset` on; the number of bytes.
  expected<std::size_t> read(std::uint64_t offset, std::span<char> into) const;
  /// Calls `use` with all that was written.
  expected<void> map(const std::function<expected<void>(std::string_view)>& use) const;

private:
  rt::unique_fd fd_;
  std::filesystem::path dir_;
  std::uint64_t size_ = 0;
};

} // namespace coppice::store
