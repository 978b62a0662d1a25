#pragma once

#include "nix/hash.hpp"
#include "store/s3/bucket.hpp"
#include "store/s3/upload_journal.hpp"
#include "store/spool_file.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace coppice::store::s3 {

/// Calls job(0) to job(count - 1) on at most `threads` threads, this one included, and waits for all of them. After the
/// first error no further ones begin; that error.
expected<void> on_threads(std::size_t count, std::size_t threads,
                          const std::function<expected<void>(std::size_t)>& job);

struct multipart_bounds {
  std::uint64_t from_bytes = 32u << 20; ///< smaller blobs are put in one piece
  std::uint64_t part_bytes = 16u << 20; ///< at least 5 MiB, but for tests; more if there would be too many parts
  std::size_t parts_at_once = 4;        ///< on as many threads
  std::chrono::milliseconds outage_max{120'000}; ///< so long a part is tried again while the server is not there
};

/// The name under which an object has the sha256 of its bytes, in hex.
inline constexpr const char* sha256_header = "x-amz-meta-sha256";

/// Puts the file under the key in parts. A part that the server did not take is sent again, also by a server that was
/// away for a while; what cannot be completed is aborted, now or by sweep_uploads(). Errors as bucket's.
expected<void> put_in_parts(bucket& to, upload_journal& journal, const std::string& key, const spool_file& bytes,
                            const nix::hash& sha256, const multipart_bounds& bounds);

/// Aborts the journal's abandoned uploads; how many. Stops at the first error.
expected<std::size_t> sweep_uploads(bucket& at, upload_journal& journal);

/// Aborts all uploads in the bucket that were begun so long ago by the server's own clock; how many. They are of
/// machines that did not come back.
expected<std::size_t> sweep_old_uploads(bucket& at, std::chrono::hours age);

} // namespace coppice::store::s3
