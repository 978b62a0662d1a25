#pragma once

#include "messages/build.hpp"
#include "nix/hash.hpp"
#include "store/blob_store.hpp"
#include "store/compression.hpp"

#include <filesystem>
#include <set>

namespace coppice::store {

/// A content hash to be taken on the way: of the file itself (flat) or of the NAR (recursive).
struct content_request {
  nix::content_method method = nix::content_method::flat;
  nix::hash_algo algo = nix::hash_algo::sha256;
};

struct pack_options {
  std::set<nix::store_path> candidates;             ///< among these, references are looked for
  std::optional<content_request> content;           ///< for fixed outputs
  std::uint64_t nar_bytes_max = UINT64_C(64) << 30; ///< a larger NAR is `limit_exceeded`
  zstd_options compression;
  bool blob_optional = false; ///< go on for the other facts when the blob store fails
};

/// What one pass over a tree tells.
struct packed {
  coppice::nar_hash nar_hash;
  std::uint64_t nar_size = 0;
  std::set<nix::store_path> references;
  /// As asked by `content`; none if it was asked flat of anything but a regular file that is not executable.
  std::optional<nix::hash> content_hash;
  blob_id blob; ///< sha256 of the compressed NAR
  std::uint64_t blob_size = 0;
  /// Holds the compressed NAR; commit it under nar_key(blob, generation). Null after blob_failure or without a store.
  std::unique_ptr<blob_writer> writer;
  std::optional<error> blob_failure; ///< why there is no writer; only with blob_optional
};

/// Reads the tree once and takes all facts on the way. `blobs` may be null: then nothing is kept. Errors: those of
/// dump_path and of the blob store, `limit_exceeded`.
expected<packed> pack(const std::filesystem::path& real, blob_store* blobs, const pack_options& options);

/// The path's description: from what was packed, and the generation its blob is to be put under.
path_info to_path_info(const nix::store_path& path, const packed& p, std::optional<nix::store_path> deriver,
                       std::string ca, generation gen);

} // namespace coppice::store
