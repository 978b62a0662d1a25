#include "store/path_records.hpp"

#include "store/blob_store.hpp"

#include <algorithm>
#include <charconv>

namespace coppice::store {

namespace {

/// The generation in the URL of one of our own blobs, else 0.
generation generation_in(std::string_view url, const blob_id& blob) {
  const auto head = "nar/" + blob.to_string() + ".";
  generation gen;
  if (url.starts_with(head)) {
    url.remove_prefix(head.size());
    if (std::from_chars(url.data(), url.data() + url.size(), gen.value).ec != std::errc{}) gen = {};
  }
  return gen;
}

} // namespace

nix::narinfo to_narinfo(const path_info& info) {
  nix::narinfo narinfo;
  narinfo.path = info.path;
  narinfo.url = nar_key(info.blob, info.gen);
  narinfo.compression = "zstd";
  if (!info.blob.empty()) narinfo.file_hash = nix::hash{info.blob.bytes};
  narinfo.file_size = info.blob_size;
  narinfo.nar_hash = nix::hash{info.nar_hash.bytes};
  narinfo.nar_size = info.nar_size;
  narinfo.references = {info.references.begin(), info.references.end()};
  narinfo.deriver = info.deriver;
  narinfo.ca = info.ca;
  return narinfo;
}

expected<path_info> from_narinfo(const nix::narinfo& narinfo) {
  if (narinfo.nar_hash.algo() != nix::hash_algo::sha256)
    return fail(ec::invalid, "the narinfo of " + narinfo.path.to_string() +
                                 " has a NAR hash other than sha256: " + narinfo.nar_hash.to_string());
  path_info info;
  info.path = narinfo.path;
  info.nar_hash.bytes = narinfo.nar_hash.sha256();
  info.nar_size = narinfo.nar_size;
  info.references.assign(narinfo.references.begin(), narinfo.references.end());
  info.deriver = narinfo.deriver;
  info.ca = narinfo.ca;
  if (narinfo.file_hash && narinfo.file_hash->algo() == nix::hash_algo::sha256)
    info.blob.bytes = narinfo.file_hash->sha256();
  info.blob_size = narinfo.file_size;
  info.gen = generation_in(narinfo.url, info.blob);
  return info;
}

} // namespace coppice::store
