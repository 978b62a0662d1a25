#pragma once

#include "store/blob_store.hpp"

#include <map>
#include <mutex>

namespace coppice::bench {

/// Blobs that cost next to nothing: kept in memory. Those that were never put are not lost, only out of reach: FETCHER
/// wants outputs ahead that idle workers made up, and would have the ledger forget them.
class memory_blobs final : public store::blob_store {
public:
  expected<std::unique_ptr<store::blob_writer>> begin() override {
    return fail(ec::unsupported, "this store takes whole blobs only");
  }
  expected<void> put(const std::string& key, std::string_view bytes) override {
    std::lock_guard lock{mutex_};
    blobs_[key] = std::string(bytes);
    return {};
  }
  expected<void> put_all(const std::vector<std::pair<std::string, std::string>>& blobs) override {
    std::lock_guard lock{mutex_};
    for (auto& [key, bytes] : blobs)
      blobs_[key] = bytes;
    return {};
  }
  expected<std::unique_ptr<store::blob_reader>> open(const std::string& key) override {
    std::lock_guard lock{mutex_};
    auto found = blobs_.find(key);
    if (found == blobs_.end()) return fail(ec::unavailable, "no blob " + key);
    return std::make_unique<reader>(found->second);
  }
  expected<std::optional<std::uint64_t>> stat(const std::string& key) override {
    std::lock_guard lock{mutex_};
    auto found = blobs_.find(key);
    if (found == blobs_.end()) return std::optional<std::uint64_t>{};
    return std::optional<std::uint64_t>{found->second.size()};
  }
  expected<void> remove(const std::string& key) override {
    std::lock_guard lock{mutex_};
    blobs_.erase(key);
    return {};
  }
  expected<void> list(std::string_view, const std::function<bool(const std::string&, std::uint64_t)>&) override {
    return fail(ec::unsupported, "this store lists nothing");
  }

private:
  class reader final : public store::blob_reader {
  public:
    explicit reader(std::string bytes) : bytes_(std::move(bytes)) {}
    std::uint64_t size() const override { return bytes_.size(); }
    expected<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
      if (offset >= bytes_.size()) return std::size_t{0};
      return bytes_.copy(into.data(), into.size(), static_cast<std::size_t>(offset));
    }

  private:
    std::string bytes_;
  };
  std::mutex mutex_;
  std::map<std::string, std::string> blobs_;
};

} // namespace coppice::bench
