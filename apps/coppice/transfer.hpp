#pragma once

#include "apps/common/closure.hpp"
#include "messages/client.hpp"
#include "nix/signature.hpp"

#include <atomic>
#include <filesystem>
#include <set>
#include <string>

/// Bulk data between the client and a node's cache server. Blocks; several transfers run at once.
namespace coppice::app {

/// Transfers of one client that run at once.
inline constexpr std::size_t transfers_max = 8;
/// How often a transfer is tried that breaks off.
inline constexpr std::size_t transfer_tries_max = 6;

/// What a person may know of transfers that run; written by their threads, read by whoever draws.
struct transfer_progress {
  std::atomic<std::uint64_t> done{0}, total{0}, bytes{0};
  std::atomic<bool> stop{false}; ///< ends them with `shutdown`
};

/// Uploads what `lacks` names: sources from `objects`, those that others refer to first, and the packed closure.
expected<void> upload(const missing& lacks, const derivation_closure& closure, const std::filesystem::path& objects,
                      blob_id packed_id, const std::string& packed, transfer_progress& progress);

/// The cache that outputs are fetched from, whose signature they must bear unless they are content-addressed.
struct cache {
  std::string url;
  nix::public_key key;
};

/// Fetches the closure of `paths` into the directory `store`, under base names; what is there is not fetched. A path
/// appears only whole, and after all that it refers to.
expected<void> fetch_closure(const cache& from, const std::set<nix::store_path>& paths,
                             const std::filesystem::path& store, transfer_progress& progress);

} // namespace coppice::app
