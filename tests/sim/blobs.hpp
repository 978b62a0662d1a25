#pragma once

#include "store/blob_store.hpp"
#include "tests/sim/dice.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>

namespace coppice::sim {

/// The farm's store on its disk: what is put is durable, until the disk loses or spoils it.
class blob_disk final : public store::blob_store {
public:
  expected<std::unique_ptr<store::blob_writer>> begin() override;
  expected<void> put(const std::string& key, std::string_view bytes) override;
  expected<void> put_all(const std::vector<std::pair<std::string, std::string>>& blobs) override;
  expected<std::unique_ptr<store::blob_reader>> open(const std::string& key) override;
  expected<std::optional<std::uint64_t>> stat(const std::string& key) override;
  expected<void> remove(const std::string& key) override;
  expected<void> list(std::string_view prefix,
                      const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) override;

  /// Told of each blob that is removed, with the bytes it had.
  std::function<void(const std::string& key, const std::string& bytes)> on_removed;
  /// Asked before each thing that is put: the error it ends with, if any.
  std::function<expected<void>(const std::string& key)> refuses;

  /// What is there, as it is, without anybody's errors; null if there is nothing.
  const std::string* find(const std::string& key) const;
  const std::map<std::string, std::string>& all() const { return blobs_; }
  /// As a disk does that goes bad: nobody is told.
  void lose(const std::string& key) { blobs_.erase(key); }
  void flip(const std::string& key, std::size_t bit);

private:
  std::map<std::string, std::string> blobs_;
};

/// The same disk as a member sees it, over the network (store/http_blob_store.hpp).
class remote_blobs final : public store::blob_store {
public:
  /// `reach` fails while the hub cannot be reached or refuses; `spoils` tells whether what is read now is spoilt on its
  /// way.
  remote_blobs(blob_disk& disk, std::function<expected<void>()> reach, std::function<bool()> spoils)
      : disk_(disk), reach_(std::move(reach)), spoils_(std::move(spoils)) {}
  expected<std::unique_ptr<store::blob_writer>> begin() override;
  expected<void> put(const std::string& key, std::string_view bytes) override;
  expected<void> put_all(const std::vector<std::pair<std::string, std::string>>& blobs) override;
  expected<std::unique_ptr<store::blob_reader>> open(const std::string& key) override;
  expected<std::optional<std::uint64_t>> stat(const std::string& key) override;
  expected<void> remove(const std::string& key) override;
  expected<void> list(std::string_view prefix,
                      const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) override;

private:
  blob_disk& disk_;
  std::function<expected<void>()> reach_;
  std::function<bool()> spoils_;
};

} // namespace coppice::sim
