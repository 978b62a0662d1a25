#pragma once

#include "messages/ids.hpp"
#include "messages/store_path.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Where the farm keeps its bytes: named blobs, laid out as a Nix binary cache.
namespace coppice::store {

/// Longest key, in bytes.
inline constexpr std::size_t blob_key_bytes_max = 1024;

/// Checks a key: relative, '/'-separated components of printable ASCII without space, none of them empty or starting
/// with '.'. `invalid` for anything else.
expected<void> check_blob_key(std::string_view key);

/// "nar/<hex>.<generation>.nar.zst": a compressed NAR in one life of its name (INV-8).
std::string nar_key(const blob_id& blob, generation gen);
/// "<hash part>.narinfo".
std::string narinfo_key(const nix::store_path& path);
/// "log/<base name of the .drv>": where stock Nix looks for the log of a derivation.
std::string log_key(const nix::store_path& drv);
/// "attempts/<inhash>-<fence>.log": the log of one attempt.
std::string attempt_log_key(const inhash& key, fence token);
/// "closures/<hex>.<generation>": a packed derivation closure.
std::string closure_key(const blob_id& closure, generation gen);
/// What the blob under this key must hash to: set if the key is one of nar_key() or closure_key().
std::optional<blob_id> blob_of_key(std::string_view key);

/// A blob being written. Nobody sees it before commit(); without it the destructor takes all traces away.
class blob_writer {
public:
  virtual ~blob_writer() = default;
  /// Appends; after an error only destruction makes sense.
  virtual expected<void> write(std::string_view bytes) = 0;
  /// Makes the blob durable and visible under `key`, replacing what was there, and reads its size back (INV-16).
  /// Called at most once, last; after an error the blob may or may not be there.
  virtual expected<void> commit(const std::string& key) = 0;
};

/// An open blob: all that is read is of one and the same blob, even when its key is replaced or removed. A store that
/// is reached over a network may fail then, where a directory does not. For one thread at a time.
class blob_reader {
public:
  virtual ~blob_reader() = default;
  /// Bytes of the blob.
  virtual std::uint64_t size() const = 0;
  /// Tells blobs under one key apart: another one has another text. Empty if the store cannot tell.
  virtual std::string version() const { return {}; }
  /// Fills as much of `into` as there is from `offset` on; returns the number of bytes, less than asked only at the
  /// blob's end.
  virtual expected<std::size_t> read(std::uint64_t offset, std::span<char> into) = 0;
};

/// Port to a store of blobs. Any number of threads may call it at the same time; every call blocks.
/// Errors: `invalid` for a bad key, `storage_full`, `io`, `missing` for open() of an absent key, `corrupt`; where the
/// store is another machine's also `unavailable`, `forbidden`, `conflict`, `limit_exceeded`.
class blob_store {
public:
  virtual ~blob_store() = default;
  virtual expected<std::unique_ptr<blob_writer>> begin() = 0;
  /// Replaces a small blob atomically; durable on return.
  virtual expected<void> put(const std::string& key, std::string_view bytes) = 0;
  /// As put for each in turn, but cheaper; after an error some of them may have been put.
  virtual expected<void> put_all(const std::vector<std::pair<std::string, std::string>>& blobs) = 0;
  virtual expected<std::unique_ptr<blob_reader>> open(const std::string& key) = 0;
  /// Bytes of the blob; none if it is absent.
  virtual expected<std::optional<std::uint64_t>> stat(const std::string& key) = 0;
  /// Absent is no error.
  virtual expected<void> remove(const std::string& key) = 0;
  /// Calls `each` with key and bytes of every blob whose key starts with `prefix`, in no order, until it returns
  /// false. Blobs put or removed meanwhile may or may not be told.
  virtual expected<void> list(std::string_view prefix,
                              const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) = 0;
};

/// The whole blob; `limit_exceeded` if it is larger than `bytes_max`.
expected<std::string> read_blob(blob_store& blobs, const std::string& key, std::uint64_t bytes_max);

/// Reads the blob back and compares; `corrupt` if size or sha256 differ (INV-16).
expected<void> verify_blob(blob_store& blobs, const std::string& key, const blob_id& id, std::uint64_t bytes);

} // namespace coppice::store
