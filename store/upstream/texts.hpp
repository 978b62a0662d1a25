#pragma once

#include "messages/build.hpp"
#include "nix/signature.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Binary caches of others: what they say is hostile until it is proven.
namespace coppice::store {

/// What a cache says of itself.
struct cache_info {
  std::string store_dir = "/nix/store";
  int priority = 50; ///< lower ones are asked first
};
/// Reads a nix-cache-info as Nix does: absent fields, and a priority that is no number, keep their defaults, and other
/// lines say nothing. `corrupt` for what has none of its fields.
expected<cache_info> parse_cache_info(std::string_view text);

/// The base URL of a cache without '/' at its end: http, https or file, without parameters; else `invalid`.
expected<std::string> parse_cache_url(std::string_view url);

/// What a narinfo must keep to.
struct trust {
  std::vector<nix::public_key> keys;
  std::string store_dir = "/nix/store";
  std::uint64_t nar_bytes_max = UINT64_C(1) << 40;
};

/// A path that a cache offers.
struct upstream_path {
  path_info info;  ///< blob and generation empty
  std::string url; ///< of its NAR, relative to the cache
};
/// What a narinfo says of `path`. Nothing of it is believed unless a key has signed it, or the path is a recursive
/// sha256 content address of the NAR it states. `corrupt` if it cannot be read or is of another path, `forbidden` if
/// nobody vouches for it, `limit_exceeded` if it is too large, `unsupported` for other compressions than none, xz,
/// zstd.
expected<upstream_path> read_upstream_narinfo(std::string_view text, const nix::store_path& path, const trust& t);

} // namespace coppice::store
