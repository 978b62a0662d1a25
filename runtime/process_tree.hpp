#pragma once

#include <sys/types.h>

#include <cstdint>

namespace coppice::rt {

/// What a process and all below it use.
struct tree_use {
  std::uint64_t tasks = 0;        ///< processes and threads
  std::uint64_t memory_bytes = 0; ///< without what they share with files; pages shared since a fork count in each
};

/// Looks through /proc, which takes microseconds for each process of the machine: the substitute for a control group.
/// Nothing if there is no such process.
tree_use use_of_tree(pid_t root);

} // namespace coppice::rt
