#pragma once

#include "messages/errors.hpp"
#include "store/s3/texts.hpp"

#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace coppice::store::s3 {

/// The uploads in parts that this store has begun and not ended, on disk, so that those of a process that died are
/// aborted by its successor. The directory is for this journal alone. Any number of threads at once.
class upload_journal {
public:
  /// Creates the directory if it is not there.
  static expected<std::unique_ptr<upload_journal>> open(const std::filesystem::path& dir);

  /// Durable on return; the upload is under way.
  expected<void> begin(const open_upload& upload);
  /// The upload is not under way any more, and was neither completed nor aborted as far as is known.
  void give_up(const open_upload& upload);
  /// The upload is no more.
  expected<void> end(const open_upload& upload);
  /// Those that are not under way: of earlier processes, or given up.
  expected<std::vector<open_upload>> abandoned() const;

private:
  explicit upload_journal(std::filesystem::path dir) : dir_(std::move(dir)) {}
  std::filesystem::path file_of(const open_upload& upload) const;

  const std::filesystem::path dir_;
  mutable std::mutex mutex_;
  std::set<std::filesystem::path> under_way_; ///< guarded by mutex_
};

} // namespace coppice::store::s3
