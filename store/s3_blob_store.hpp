#pragma once

#include "store/blob_store.hpp"
#include "store/blob_urls.hpp"
#include "store/s3/bucket.hpp"
#include "store/s3/multipart.hpp"

#include <atomic>
#include <filesystem>
#include <memory>

namespace coppice::store {

struct s3_blob_options {
  struct bounds : s3::bucket_bounds {
    s3::multipart_bounds parts;
    std::size_t puts_at_once = 8; ///< of put_all(), on as many threads
  };
  s3::bucket_place place;
  s3::credentials_place credentials;
  s3::environment environment; ///< where credentials may be
  /// Blobs that are being written wait here, without names, and a journal of uploads; for this store alone.
  std::filesystem::path scratch_dir;
  const rt::clock* clock = nullptr; ///< outlives the store, as does:
  /// Ends what is under way, soon, with `shutdown` once it is true.
  const std::atomic<bool>* stop = nullptr;
  bounds limits;
};

/// A bucket of an S3 server, laid out as a Nix binary cache. What is spoilt on its way there is refused by the server;
/// on its way here it is for readers to notice. Errors as s3::bucket's, of open() also `missing`.
class s3_blob_store final : public blob_store, public blob_urls {
public:
  /// Error if the settings are wrong or the scratch directory cannot be made: the server may come up later.
  static expected<std::unique_ptr<s3_blob_store>> open_bucket(s3_blob_options options);
  ~s3_blob_store() override;

  expected<std::unique_ptr<blob_writer>> begin() override;
  expected<void> put(const std::string& key, std::string_view bytes) override;
  expected<void> put_all(const std::vector<std::pair<std::string, std::string>>& blobs) override;
  expected<std::unique_ptr<blob_reader>> open(const std::string& key) override;
  expected<std::optional<std::uint64_t>> stat(const std::string& key) override;
  expected<void> remove(const std::string& key) override;
  expected<std::string> url_of(const std::string& key, std::chrono::seconds valid) override;
  expected<void> list(std::string_view prefix,
                      const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) override;

  /// Puts a small blob unless there is one, also when many try: whether it did.
  expected<bool> put_new(const std::string& key, std::string_view bytes);
  /// Makes the bucket a binary cache for that store directory; `conflict` if it is one for another.
  expected<void> claim(std::string_view store_dir);
  /// Aborts uploads in parts that earlier processes on this scratch directory left behind, and all that were begun
  /// longer ago than `age`; how many.
  expected<std::size_t> sweep(std::chrono::hours age);

private:
  struct state;
  explicit s3_blob_store(std::shared_ptr<state> s);
  const std::shared_ptr<state> state_;
};

} // namespace coppice::store
