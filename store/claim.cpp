#include "store/claim.hpp"

namespace coppice::store {

namespace {

constexpr const char* cache_info = "nix-cache-info";
constexpr std::uint64_t cache_info_bytes_max = 64 * 1024;

} // namespace

expected<void>
claim_blobs(blob_store& blobs, std::string_view store_dir,
            const std::function<expected<bool>(const std::string& key, std::string_view bytes)>& put_new) {
  const auto line = "StoreDir: " + std::string{store_dir} + "\n";
  const auto mine = put_new(cache_info, line + "WantMassQuery: 1\nPriority: 30\n");
  if (!mine) return tl::unexpected(mine.error());
  if (*mine) return {};
  const auto there = read_blob(blobs, cache_info, cache_info_bytes_max);
  if (!there) return tl::unexpected(there.error());
  if (("\n" + *there).find("\n" + line) != std::string::npos) return {};
  return fail(ec::conflict,
              "the blobs are not for store directory " + std::string{store_dir} + ": see their " + cache_info);
}

} // namespace coppice::store
