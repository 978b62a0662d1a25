#include "tests/sim/blobs.hpp"

#include "nix/hash.hpp"

#include <algorithm>

namespace coppice::sim {

namespace {

/// Collects what is written, and hands it over whole.
class text_writer final : public store::blob_writer {
public:
  explicit text_writer(store::blob_store& to) : to_(to) {}
  expected<void> write(std::string_view bytes) override {
    bytes_ += bytes;
    return {};
  }
  expected<void> commit(const std::string& key) override { return to_.put(key, bytes_); }

private:
  store::blob_store& to_;
  std::string bytes_;
};

class text_reader final : public store::blob_reader {
public:
  explicit text_reader(std::string bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  expected<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
    const auto n = offset >= bytes_.size() ? 0 : std::min(into.size(), bytes_.size() - offset);
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), n, into.begin());
    return n;
  }

private:
  const std::string bytes_;
};

bool is_sound(const std::string& key, const std::string& bytes) {
  const auto id = store::blob_of_key(key);
  return !id || id->bytes == nix::sha256(bytes);
}

} // namespace

expected<std::unique_ptr<store::blob_writer>> blob_disk::begin() {
  return std::make_unique<text_writer>(*this);
}

expected<void> blob_disk::put(const std::string& key, std::string_view bytes) {
  if (auto ok = store::check_blob_key(key); !ok) return ok;
  if (auto no = refuses ? refuses(key) : expected<void>{}; !no) return no;
  blobs_[key] = bytes;
  return {};
}

expected<void> blob_disk::put_all(const std::vector<std::pair<std::string, std::string>>& blobs) {
  for (auto& [key, bytes] : blobs)
    if (auto done = put(key, bytes); !done) return done;
  return {};
}

expected<std::unique_ptr<store::blob_reader>> blob_disk::open(const std::string& key) {
  auto* bytes = find(key);
  if (bytes == nullptr) return fail(ec::missing, "there is no blob " + key);
  return std::make_unique<text_reader>(*bytes);
}

expected<std::optional<std::uint64_t>> blob_disk::stat(const std::string& key) {
  auto* bytes = find(key);
  return bytes == nullptr ? std::optional<std::uint64_t>{} : bytes->size();
}

expected<void> blob_disk::remove(const std::string& key) {
  auto gone = blobs_.extract(key);
  if (!gone.empty() && on_removed) on_removed(key, gone.mapped());
  return {};
}

expected<void> blob_disk::list(std::string_view prefix,
                               const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) {
  for (auto i = blobs_.lower_bound(std::string{prefix}); i != blobs_.end() && i->first.starts_with(prefix); ++i)
    if (!each(i->first, i->second.size())) break;
  return {};
}

const std::string* blob_disk::find(const std::string& key) const {
  auto found = blobs_.find(key);
  return found == blobs_.end() ? nullptr : &found->second;
}

void blob_disk::flip(const std::string& key, std::size_t bit) {
  auto found = blobs_.find(key);
  if (found == blobs_.end() || found->second.empty()) return;
  auto& byte = found->second[bit / 8 % found->second.size()];
  byte = static_cast<char>(byte ^ (1 << bit % 8));
}

expected<std::unique_ptr<store::blob_writer>> remote_blobs::begin() {
  return std::make_unique<text_writer>(*this);
}

expected<void> remote_blobs::put(const std::string& key, std::string_view bytes) {
  if (auto there = reach_(); !there) return there;
  auto done = disk_.put(key, bytes);
  if (!done) return done;
  return reach_(); // the answer has to come back
}

expected<void> remote_blobs::put_all(const std::vector<std::pair<std::string, std::string>>& blobs) {
  for (auto& [key, bytes] : blobs)
    if (auto done = put(key, bytes); !done) return done;
  return {};
}

expected<std::unique_ptr<store::blob_reader>> remote_blobs::open(const std::string& key) {
  if (auto there = reach_(); !there) return tl::unexpected(there.error());
  auto* bytes = disk_.find(key);
  if (bytes == nullptr) return fail(ec::missing, "there is no blob " + key);
  auto copy = *bytes;
  if (!copy.empty() && spoils_()) copy[copy.size() / 2] = static_cast<char>(copy[copy.size() / 2] ^ 4);
  return std::make_unique<text_reader>(std::move(copy));
}

expected<std::optional<std::uint64_t>> remote_blobs::stat(const std::string& key) {
  if (auto there = reach_(); !there) return tl::unexpected(there.error());
  return disk_.stat(key);
}

// The hub looks for itself: what is as its key says stays.
expected<void> remote_blobs::remove(const std::string& key) {
  if (auto there = reach_(); !there) return there;
  if (auto* bytes = disk_.find(key); bytes != nullptr && store::blob_of_key(key) && is_sound(key, *bytes))
    return fail(ec::conflict, key + " is as it should be, and stays");
  return disk_.remove(key);
}

expected<void> remote_blobs::list(std::string_view prefix,
                                  const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) {
  if (auto there = reach_(); !there) return there;
  return disk_.list(prefix, each);
}

} // namespace coppice::sim
