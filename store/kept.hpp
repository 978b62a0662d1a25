#pragma once

#include "messages/build.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace coppice::store {

/// Outputs that were built here and are not committed yet (INV-12).
struct kept_entry {
  inhash key;
  fence token;
  nix::store_path drv;
  std::string aterm;
  std::vector<realised_output> outputs;
  COPPICE_STRUCT(kept_entry, 1, key, 2, token, 3, drv, 4, aterm, 5, outputs)
};

/// What a journal holds, and what in it could not be read.
struct kept_listing {
  std::vector<kept_entry> entries;   ///< ordered by inhash
  std::vector<std::string> problems; ///< one sentence for each file that was skipped
};

/// The journal of kept outputs: one file for each inhash. Calls for different inhashes may run at the same time.
class kept_journal {
public:
  /// Creates the directory if need be.
  static expected<kept_journal> open(const std::filesystem::path& dir);

  /// Durable on return; replaces the entry of the same inhash.
  expected<void> add(const kept_entry& entry);
  /// Absent is no error. Not durable on return: who finds the entry after a crash finds it settled in the ledger, as
  /// after a crash just before this.
  expected<void> remove(const inhash& key);
  /// Torn and foreign files are told, not fatal.
  expected<kept_listing> list() const;

private:
  explicit kept_journal(std::filesystem::path dir) : dir_(std::move(dir)) {}
  std::filesystem::path dir_;
};

} // namespace coppice::store
