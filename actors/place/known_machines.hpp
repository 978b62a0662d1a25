#pragma once

#include "messages/pipeline.hpp"

#include <filesystem>
#include <vector>

namespace coppice::actors {

/// A machine of the farm as it last offered itself.
struct known_machine {
  offer what;
  std::int64_t heard_ms = 0; ///< wall clock, since 1970
  COPPICE_STRUCT(known_machine, 1, what, 2, heard_ms)
};
/// All that an ALLOCATOR has heard of: what it tells of those that are offline, whatever was started again since.
struct known_machines {
  std::vector<known_machine> rows;
  COPPICE_STRUCT(known_machines, 1, rows)
};

/// From the file; none if there is no file. Blocks.
expected<known_machines> read_known_machines(const std::filesystem::path& file);
/// Durable on return. Blocks.
expected<void> write_known_machines(const std::filesystem::path& file, const known_machines& all);

} // namespace coppice::actors
