#include "store/sqlite_columns.hpp"

#include <algorithm>

namespace coppice::store {

std::string joined(const std::vector<nix::store_path>& paths) {
  std::string text;
  for (auto& path : paths)
    text += (text.empty() ? "" : " ") + path.base_name();
  return text;
}

std::vector<nix::store_path> split(std::string_view text) {
  std::vector<nix::store_path> paths;
  while (!text.empty()) {
    auto end = std::min(text.find(' '), text.size());
    auto path = nix::store_path::from_base_name(text.substr(0, end));
    if (!path)
      throw ledger_io_error(ec::corrupt,
                            "the ledger's row holds the reference '" + std::string(text.substr(0, end)) + "'");
    paths.push_back(*std::move(path));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return paths;
}

path_info take_path(sqlite_query& q) {
  path_info info;
  info.path = q.take<nix::store_path>();
  info.nar_hash = q.take<nar_hash>();
  info.nar_size = q.take<std::uint64_t>();
  info.references = split(q.take<std::string>());
  info.deriver = q.take_optional<nix::store_path>();
  info.ca = q.take<std::string>();
  info.blob = q.take<blob_id>();
  info.blob_size = q.take<std::uint64_t>();
  info.gen = q.take<generation>();
  return info;
}

} // namespace coppice::store
