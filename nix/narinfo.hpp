#pragma once

#include "nix/hash.hpp"
#include "nix/store_path.hpp"

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::nix {

/// What signatures of a path are made over: path, NAR hash in base 32, NAR size, sorted full paths of references.
std::string path_fingerprint(const store_path& path, const hash& nar_hash, std::uint64_t nar_size,
                             const std::set<store_path>& references, std::string_view store_dir = default_store_dir);

/// What a binary cache states of a path.
struct narinfo {
  store_path path;
  std::string url;                  ///< relative to the cache's root.
  std::string compression = "none"; ///< a hint: readers go by the data.
  std::optional<hash> file_hash;    ///< of the compressed file; not signed.
  std::uint64_t file_size = 0;      ///< bytes of the compressed file, 0 if unknown; not signed.
  hash nar_hash;
  std::uint64_t nar_size = 0;      ///< bytes, greater than 0.
  std::set<store_path> references; ///< with the path itself, if it refers to itself.
  std::optional<store_path> deriver;
  std::string system;            ///< empty if not stated.
  std::vector<std::string> sigs; ///< "<key name>:<base 64>".
  std::string ca;                ///< "fixed:[r:]<hash>", "text:<hash>", or empty.

  /// path_fingerprint of this path.
  std::string fingerprint(std::string_view store_dir = default_store_dir) const;

  bool operator==(const narinfo&) const = default;
};

/// Reads a narinfo as Nix does: fields in any order, unknown ones ignored, only StorePath, URL, NarHash and NarSize
/// needed; a line without ": ", an empty line, CRLF, a missing last newline or a field stated twice is refused.
expected<narinfo> parse_narinfo(std::string_view text, std::string_view store_dir = default_store_dir);

/// The text as Nix writes it.
std::string print_narinfo(const narinfo& info, std::string_view store_dir = default_store_dir);

/// Whether the path follows from `ca`, so that it needs no signature once its contents match; fails if `ca` is
/// malformed.
expected<bool> content_address_matches(const narinfo& info, std::string_view store_dir = default_store_dir);

} // namespace coppice::nix
