#pragma once

#include "messages/ledger.hpp"
#include "store/sqlite_query.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What the queries of several tables have in common: columns of more than one value, and whole rows.
namespace coppice::store {

/// An empty id is NULL in the columns that may have none.
template <class Id>
std::optional<Id> or_null(const Id& id) {
  return id.empty() ? std::nullopt : std::optional{id};
}

/// The first column of all rows.
template <class T>
std::vector<T> take_all(sqlite_query&& q) {
  std::vector<T> found;
  while (q.next())
    found.push_back(q.take<T>());
  return found;
}

/// Store paths as one column: base names with spaces between them.
std::string joined(const std::vector<nix::store_path>& paths);
/// The inverse of joined().
std::vector<nix::store_path> split(std::string_view text);

/// Of a path_info, as take_path() takes them.
#define COPPICE_PATH_COLUMNS "path, nar_hash, nar_size, refs, deriver, ca, blob, blob_size, gen"
path_info take_path(sqlite_query& q);

} // namespace coppice::store
