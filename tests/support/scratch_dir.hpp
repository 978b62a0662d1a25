#pragma once

#include "store/nar_files.hpp"

#include <stdlib.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>

namespace coppice::test {

namespace fs = std::filesystem;

template <class T>
T need(expected<T> x) {
  if (!x) throw std::runtime_error(to_string(x.error()));
  return std::move(*x);
}
inline void need(expected<void> x) {
  if (!x) throw std::runtime_error(to_string(x.error()));
}

/// A directory for one test; in memory, if the machine lets us.
class scratch_dir {
public:
  scratch_dir() {
    fs::path where = fs::is_directory("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    auto pattern = (where / "coppice-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
    path = pattern;
  }
  ~scratch_dir() { (void)store::remove_tree(path); } // ignored: it is in memory or in /tmp
  scratch_dir(const scratch_dir&) = delete;
  scratch_dir& operator=(const scratch_dir&) = delete;
  fs::path path;
};

} // namespace coppice::test
