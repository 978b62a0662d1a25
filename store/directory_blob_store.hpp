#pragma once

#include "store/blob_store.hpp"

#include <filesystem>

namespace coppice::store {

/// Blobs as files of a directory, which stock Nix can use as a `file://` binary cache. Several processes may share it.
class directory_blob_store final : public blob_store {
public:
  /// Creates what is missing, sweeps temporary files of processes that are gone, writes nix-cache-info; `conflict` if
  /// there is one for another store directory.
  static expected<std::unique_ptr<directory_blob_store>> open_dir(const std::filesystem::path& dir,
                                                                  std::string_view store_dir = "/nix/store");

  const std::filesystem::path& dir() const { return dir_; }

  expected<std::unique_ptr<blob_writer>> begin() override;
  expected<void> put(const std::string& key, std::string_view bytes) override;
  expected<void> put_all(const std::vector<std::pair<std::string, std::string>>& blobs) override;
  expected<std::unique_ptr<blob_reader>> open(const std::string& key) override;
  expected<std::optional<std::uint64_t>> stat(const std::string& key) override;
  expected<void> remove(const std::string& key) override;
  expected<void> list(std::string_view prefix,
                      const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) override;

private:
  explicit directory_blob_store(std::filesystem::path dir);

  std::filesystem::path dir_;
};

} // namespace coppice::store
