#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// What this process uses of the machine.
namespace coppice::bench {

/// CPU time of one thread of this process.
struct thread_use {
  std::string name; ///< with its id
  double cpu_s = 0;
};
std::vector<thread_use> threads_now();
/// The thread that used most since then.
thread_use busiest_since(const std::vector<thread_use>& then);
/// Resident memory of this process.
std::int64_t resident_bytes();

} // namespace coppice::bench
