#pragma once

#include "store/blob_store.hpp"
#include "store/resumable_reader.hpp"

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

namespace coppice::store {

struct http_blob_options {
  struct bounds : reading_bounds {
    std::size_t ahead_bytes_max = 1 << 20; ///< received before somebody reads it
    unsigned tries_max = 3;                ///< of a request that gets no answer or a 5xx, or was spoilt on the way
    std::size_t connections_idle_max = 8;  ///< kept open for further requests
  };
  /// The base URL of the node that has the store, as it is now: asked before each request. Its errors pass.
  std::function<expected<std::string>()> url;
  /// A new ticket of that node for this machine; `refused` if the last one was refused. Its errors pass.
  std::function<expected<std::string>(bool refused)> ticket;
  /// Blobs that are being written wait here, without names; for this store alone.
  std::filesystem::path scratch_dir;
  /// Ends what is under way, soon, with `shutdown` once it is true; outlives the store.
  const std::atomic<bool>* stop = nullptr;
  bounds limits;
};

/// The store of another node of the farm, over its CACHE_SERVER (docs/protocol.md). It may write and remove blobs, and
/// nothing that binary caches show: `forbidden`. What is spoilt on its way there is noticed, and `corrupt` if it is so
/// again and again; on its way here it is for readers to notice. `unavailable` if the node does not answer.
/// Error now only if the scratch directory cannot be made: the node may come up later.
expected<std::unique_ptr<blob_store>> open_http_blob_store(http_blob_options options);

} // namespace coppice::store
