#include "store/upstream/texts.hpp"

#include "nix/narinfo.hpp"
#include "store/path_records.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace coppice::store {

namespace {

constexpr std::size_t url_bytes_max = 2048;

bool is_url_text(std::string_view text) {
  return !text.empty() && text.size() <= url_bytes_max &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view space = " \t\r";
  const auto begin = std::min(text.find_first_not_of(space), text.size());
  return text.substr(begin, text.find_last_not_of(space) + 1 - begin);
}

/// Below the cache itself, whatever the narinfo would like to have fetched.
bool is_relative_url(std::string_view url) {
  if (!is_url_text(url) || url.front() == '/' || url.find('#') != url.npos || url.find('\\') != url.npos) return false;
  const auto path = url.substr(0, url.find('?'));
  if (path.find(':') != path.npos || path.find('%') != path.npos) return false;
  for (std::size_t at = 0; at <= path.size();) {
    const auto slash = std::min(path.find('/', at), path.size());
    if (path.substr(at, slash - at) == "..") return false;
    at = slash + 1;
  }
  return true;
}

/// The path follows from the hash of the very NAR that is stated.
bool vouches_for_itself(const nix::narinfo& info, std::string_view store_dir) {
  constexpr std::string_view recursive = "fixed:r:";
  if (!info.ca.starts_with(recursive)) return false;
  const auto digest = nix::hash::parse(std::string_view{info.ca}.substr(recursive.size()));
  return digest && *digest == info.nar_hash && !info.references.contains(info.path) &&
         nix::content_address_matches(info, store_dir).value_or(false);
}

} // namespace

expected<cache_info> parse_cache_info(std::string_view text) {
  cache_info info;
  bool any = text.empty();
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const auto colon = line.find(':');
    if (colon == line.npos) continue;
    const auto key = line.substr(0, colon), value = trimmed(line.substr(colon + 1));
    any = any || key == "StoreDir" || key == "WantMassQuery" || key == "Priority";
    if (key == "StoreDir") info.store_dir = value;
    if (key != "Priority") continue;
    int priority = 0;
    const auto [stop, status] = std::from_chars(value.data(), value.data() + value.size(), priority);
    if (status == std::errc{} && stop == value.data() + value.size()) info.priority = priority;
  }
  if (any) return info;
  return fail(ec::corrupt, "what it gives as nix-cache-info is none");
}

expected<std::string> parse_cache_url(std::string_view url) {
  const auto given = url;
  while (url.ends_with('/'))
    url.remove_suffix(1);
  const bool remote = url.starts_with("http://") || url.starts_with("https://");
  if (!is_url_text(url) || (!remote && !url.starts_with("file:///")))
    return fail(ec::invalid, nix::quoted(given) + " is no URL of a binary cache: http://…, https://… or file:///…");
  if (url.find_first_of("?#") != url.npos)
    return fail(ec::invalid, "parameters of binary caches are not supported: " + nix::quoted(given));
  return std::string{url};
}

expected<upstream_path> read_upstream_narinfo(std::string_view text, const nix::store_path& path, const trust& t) {
  const auto info = with_code(nix::parse_narinfo(text, t.store_dir), ec::corrupt);
  if (!info) return tl::unexpected(info.error());
  if (info->path != path) return fail(ec::corrupt, "it speaks of " + info->path.to_string(t.store_dir) + " instead");
  if (!nix::verify_any(info->fingerprint(t.store_dir), info->sigs, t.keys) && !vouches_for_itself(*info, t.store_dir))
    return fail(ec::forbidden, "none of the trusted keys has signed it");
  if (info->nar_size > t.nar_bytes_max)
    return fail(ec::limit_exceeded, "its NAR has " + std::to_string(info->nar_size) + " bytes, more than the " +
                                        std::to_string(t.nar_bytes_max) + " allowed");
  constexpr std::array<std::string_view, 3> known{"none", "xz", "zstd"};
  if (std::find(known.begin(), known.end(), info->compression) == known.end())
    return fail(ec::unsupported, "its compression " + nix::quoted(info->compression) + " is not known here");
  if (!is_relative_url(info->url)) return fail(ec::corrupt, "its NAR is said to be at " + nix::quoted(info->url));
  auto record = from_narinfo(*info);
  if (!record) return tl::unexpected(record.error());
  record->blob = {};
  record->blob_size = 0;
  record->gen = {};
  return upstream_path{std::move(*record), info->url};
}

} // namespace coppice::store
