#include "apps/coppice/http.hpp"
#include "apps/coppice/parallel.hpp"
#include "apps/coppice/transfer.hpp"
#include "nix/narinfo.hpp"
#include "runtime/random.hpp"
#include "store/compression.hpp"
#include "store/files.hpp"
#include "store/nar_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

namespace coppice::app {
namespace {

namespace fs = std::filesystem;

/// Bytes of a narinfo that are read; a hundred thousand references fit.
constexpr std::size_t narinfo_bytes_max = 16 << 20;

class fetcher {
public:
  fetcher(const cache& from, const fs::path& store, transfer_progress& progress)
      : from_(from), store_(store), progress_(progress) {}

  expected<void> fetch_all(const std::set<nix::store_path>& paths);

private:
  struct fetched {
    nix::narinfo info;
    fs::path temporary;
  };
  bool present(const nix::store_path& path) const { return fs::exists(fs::symlink_status(store_ / path.base_name())); }
  expected<void> fetch(const nix::store_path& path);
  expected<nix::narinfo> get_info(http_session& http, const nix::store_path& path);
  expected<void> get_nar(http_session& http, const nix::narinfo& info, const fs::path& target);
  expected<void> install(const nix::store_path& path, const fs::path& temporary) const;
  std::vector<nix::store_path> in_order() const;

  const cache& from_;
  const fs::path& store_;
  transfer_progress& progress_;
  std::mutex mutex_;
  std::map<nix::store_path, fetched> fetched_;
};

expected<nix::narinfo> fetcher::get_info(http_session& http, const nix::store_path& path) {
  const auto url = fmt::format("{}/{}.narinfo", from_.url, path.hash_part());
  std::string text;
  auto reply = http.get(url, [&](std::string_view chunk) -> expected<void> {
    if (text.size() + chunk.size() > narinfo_bytes_max) return fail(ec::limit_exceeded, url + " is too large");
    text += chunk;
    return {};
  });
  if (!reply) return tl::unexpected(reply.error());
  if (!reply->ok()) return tl::unexpected(refusal_error(*reply, url));
  auto info = nix::parse_narinfo(text);
  if (!info) return fail(ec::corrupt, fmt::format("{}: {}", url, info.error().what));
  if (info->path != path)
    return fail(ec::corrupt, fmt::format("{} speaks of {}, not of {}", url, info->path.to_string(), path.to_string()));
  if (nix::verify_any(info->fingerprint(), info->sigs, {&from_.key, 1})) return std::move(*info);
  if (!info->ca.empty() && nix::content_address_matches(*info).value_or(false)) return std::move(*info);
  return fail(ec::corrupt, fmt::format("{} bears no valid signature by the node's key {}", url, from_.key.name()));
}

expected<void> fetcher::get_nar(http_session& http, const nix::narinfo& info, const fs::path& target) {
  const auto url = fmt::format("{}/{}", from_.url, info.url);
  nix::hasher hasher;
  auto restored = store::restore_path(target, [&](const store::byte_sink& nar) -> expected<void> {
    const store::byte_sink hash_and_pass = [&](std::string_view bytes) {
      hasher.update(bytes);
      return nar(bytes);
    };
    store::decompressor plain(hash_and_pass, {.bytes_max = info.nar_size});
    auto reply = http.get(url, [&](std::string_view chunk) {
      progress_.bytes += chunk.size();
      return plain.write(chunk);
    });
    if (!reply) return tl::unexpected(reply.error());
    if (!reply->ok()) return tl::unexpected(refusal_error(*reply, url));
    return plain.finish();
  });
  if (!restored) return fail(restored.error().code, fmt::format("{}: {}", url, restored.error().what));
  const auto size = hasher.size();
  const auto hash = hasher.finish();
  if (size == info.nar_size && hash == info.nar_hash) return {};
  if (auto removed = store::remove_tree(target); !removed) return removed;
  return fail(ec::corrupt, fmt::format("{}: its NAR has {} bytes and the hash {}, but {} bytes and {} are signed", url,
                                       size, hash.to_string(), info.nar_size, info.nar_hash.to_string()));
}

expected<void> fetcher::fetch(const nix::store_path& path) {
  return with_retries(transfer_tries_max, [&]() -> expected<void> {
    http_session http(progress_.stop);
    const auto tried = fmt::format("cannot fetch {}", path.to_string());
    auto info = get_info(http, path);
    if (!info) return fail(info.error().code, fmt::format("{}: {}", tried, info.error().what));
    const auto temporary = store_ / fmt::format(".tmp-{}-{}", rt::random_id<nonce>().to_string(), path.hash_part());
    if (auto got = get_nar(http, *info, temporary); !got)
      return fail(got.error().code, fmt::format("{}: {}", tried, got.error().what));
    ++progress_.done;
    const std::lock_guard lock(mutex_);
    fetched_.emplace(path, fetched{std::move(*info), temporary});
    return {};
  });
}

std::vector<nix::store_path> fetcher::in_order() const {
  std::vector<nix::store_path> order;
  std::set<nix::store_path> seen;
  std::vector<std::pair<nix::store_path, bool>> stack; // true: all that it refers to is in the order
  for (const auto& [root, unused] : fetched_)
    stack.emplace_back(root, false);
  while (!stack.empty()) {
    const auto [path, complete] = stack.back();
    stack.pop_back();
    if (complete) {
      order.push_back(path);
      continue;
    }
    if (!seen.insert(path).second) continue;
    stack.emplace_back(path, true);
    for (const auto& reference : fetched_.at(path).info.references)
      if (fetched_.contains(reference)) stack.emplace_back(reference, false);
  }
  return order;
}

expected<void> fetcher::install(const nix::store_path& path, const fs::path& temporary) const {
  const auto target = store_ / path.base_name();
  expected<void> moved;
  if (!present(path)) moved = store::move_tree(temporary, target);
  // Another client may have been faster: what it put there has the same hash.
  if (present(path) && fs::exists(fs::symlink_status(temporary))) moved = store::remove_tree(temporary);
  return moved;
}

expected<void> fetcher::fetch_all(const std::set<nix::store_path>& paths) {
  if (auto made = store::make_directories(store_); !made) return made;
  std::set<nix::store_path> seen = paths;
  std::vector<nix::store_path> wave(paths.begin(), paths.end());
  expected<void> result;
  while (result && !wave.empty()) {
    std::erase_if(wave, [&](const auto& path) { return present(path); });
    progress_.total += wave.size();
    result = in_parallel(wave.size(), transfers_max, [&](std::size_t i) { return fetch(wave[i]); });
    std::vector<nix::store_path> next;
    for (const auto& path : wave)
      if (const auto found = fetched_.find(path); found != fetched_.end())
        for (const auto& reference : found->second.info.references)
          if (seen.insert(reference).second) next.push_back(reference);
    wave = std::move(next);
  }
  for (const auto& path : in_order()) {
    const auto& temporary = fetched_.at(path).temporary;
    // After a failure the closure has holes: nothing of it may appear.
    auto done = result ? install(path, temporary) : store::remove_tree(temporary);
    if (result) result = done;
  }
  return result;
}

} // namespace

expected<void> fetch_closure(const cache& from, const std::set<nix::store_path>& paths, const fs::path& store,
                             transfer_progress& progress) {
  progress.done = 0;
  progress.total = 0;
  progress.bytes = 0;
  return fetcher(from, store, progress).fetch_all(paths);
}

} // namespace coppice::app
