#pragma once

#include "messages/errors.hpp"
#include "nix/hash.hpp"
#include "nix/nar.hpp"
#include "nix/store_path.hpp"
#include "store/files.hpp"
#include "store/nar_files.hpp"

#include <catch2/catch.hpp>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

/// Scratch directories and trees for tests of the stores.
namespace coppice::store::test {

namespace fs = std::filesystem;

/// The value, or a failed test that tells the error.
template <class T>
T good(expected<T> result) {
  if (!result) FAIL(to_string(result.error()));
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

/// The error's code; `none` if there is none.
template <class T>
ec code_of(const expected<T>& result) {
  return result ? ec::none : result.error().code;
}

/// A directory that goes with its owner.
class scratch_dir {
public:
  scratch_dir() {
    auto name = (fs::temp_directory_path() / "coppice-test-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    dir_ = name;
  }
  scratch_dir(const scratch_dir&) = delete;
  ~scratch_dir() { remove_tree(dir_); } // ignored: a test's rubbish
  fs::path operator/(const std::string& name) const { return dir_ / name; }
  operator const fs::path&() const { return dir_; }

private:
  fs::path dir_;
};

/// A small file system of its own, for tests of full disks; only root can have one.
class small_disk {
public:
  explicit small_disk(const std::string& size) {
    mounted_ = ::mount("tmpfs", fs::path{dir_}.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
    if (!mounted_) WARN("cannot mount a tmpfs here (not root?): tests of full disks are skipped");
  }
  small_disk(const small_disk&) = delete;
  ~small_disk() {
    if (mounted_) ::umount2(fs::path{dir_}.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  fs::path operator/(const std::string& name) const { return dir_ / name; }
  operator const fs::path&() const { return dir_; }

private:
  scratch_dir dir_;
  bool mounted_ = false;
};

inline void write(const fs::path& file, std::string_view bytes, mode_t mode = 0644) {
  good(replace_file(file, bytes));
  REQUIRE(::chmod(file.c_str(), mode) == 0);
}

inline std::string read(const fs::path& file) {
  return good(read_file(file, 1 << 30));
}

inline struct stat stat_of(const fs::path& file) {
  struct stat st;
  INFO(file);
  REQUIRE(::lstat(file.c_str(), &st) == 0);
  return st;
}

inline bool is_there(const fs::path& file) {
  struct stat st;
  return ::lstat(file.c_str(), &st) == 0;
}

inline std::string nar_of(const fs::path& tree) {
  std::string nar;
  good(dump_path(tree, [&](std::string_view bytes) -> expected<void> {
    nar += bytes;
    return {};
  }));
  return nar;
}

/// Writes the bytes in pieces of that size.
inline byte_source source_of(std::string bytes, std::size_t piece = 4096) {
  return [bytes = std::move(bytes), piece](const byte_sink& sink) -> expected<void> {
    for (std::size_t at = 0; at < bytes.size(); at += piece)
      if (auto taken = sink(std::string_view{bytes}.substr(at, piece)); !taken) return taken;
    return {};
  };
}

/// A NAR made by a function that calls a nar_writer.
template <class Write>
std::string make_nar(Write events) {
  std::string nar;
  nix::nar_writer writer{[&](std::string_view bytes) { nar += bytes; }};
  events(writer);
  writer.finish();
  return nar;
}

/// A store path with that name and a hash part that follows from it.
inline nix::store_path path_named(const std::string& name) {
  return *nix::make_store_path("source", nix::sha256(name), name);
}

/// Files and directories below `dir`, their number.
inline std::size_t entries_below(const fs::path& dir) {
  return static_cast<std::size_t>(std::distance(fs::recursive_directory_iterator{dir}, {}));
}

inline owner me() {
  return {::geteuid(), ::getegid()};
}

} // namespace coppice::store::test
