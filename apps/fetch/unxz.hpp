#pragma once

#include "store/sinks.hpp"

#include <filesystem>

namespace coppice::app {

/// Memory that decompressing may take; a file that needs more is refused.
inline constexpr std::uint64_t xz_memory_bytes_max = UINT64_C(1) << 30;

/// Streams a file's contents, decompressed if `xz`. `corrupt` for what is no xz file.
expected<void> read_archive(const std::filesystem::path& file, bool xz, const store::byte_sink& out);

} // namespace coppice::app
