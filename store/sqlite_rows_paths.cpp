#include "store/sqlite_columns.hpp"
#include "store/sqlite_rows.hpp"

/// Blobs and sources.
namespace coppice::store {

std::optional<blob_row> sqlite_rows::find_blob(const blob_id& blob) {
  sqlite_query q{q_, "SELECT blob, gen, present, size FROM blob WHERE blob = ?", blob};
  if (!q.next()) return {};
  blob_row row;
  row.blob = q.take<blob_id>();
  row.gen = q.take<generation>();
  row.present = q.take<bool>();
  row.size = q.take<std::uint64_t>();
  return row;
}

void sqlite_rows::put_blob(const blob_row& row) {
  sqlite_query{q_,          "INSERT OR REPLACE INTO blob (blob, gen, present, size) VALUES (?, ?, ?, ?)",
               row.blob,    row.gen,
               row.present, row.size}
      .run();
}

bool sqlite_rows::is_blob_named(const blob_id& blob) {
  sqlite_query q{
      q_,
      "SELECT EXISTS (SELECT 1 FROM realisation WHERE blob = ?1) OR EXISTS (SELECT 1 FROM source WHERE blob ="
      " ?1) OR EXISTS (SELECT 1 FROM request WHERE state = 0 AND closure = ?1)",
      blob};
  q.next();
  return q.take<bool>();
}

std::optional<path_info> sqlite_rows::find_path(const nix::store_path& path) {
  for (auto sql : {"SELECT " COPPICE_PATH_COLUMNS " FROM source WHERE path = ?",
                   "SELECT " COPPICE_PATH_COLUMNS " FROM realisation WHERE path = ? ORDER BY inhash LIMIT 1"}) {
    sqlite_query q{q_, sql, path};
    if (q.next()) return take_path(q);
  }
  return {};
}

node_id sqlite_rows::builder_of(const nix::store_path& path) {
  sqlite_query q{q_,
                 "SELECT i.node FROM realisation r JOIN inhash i ON i.inhash = r.inhash WHERE r.path = ?"
                 " ORDER BY r.inhash LIMIT 1",
                 path};
  return q.next() ? q.take<node_id>() : node_id{};
}

void sqlite_rows::put_source(const path_info& info) {
  sqlite_query{q_,
               "INSERT INTO source (" COPPICE_PATH_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
               info.path,
               info.nar_hash,
               info.nar_size,
               joined(info.references),
               info.deriver,
               info.ca,
               info.blob,
               info.blob_size,
               info.gen}
      .run();
}

bool sqlite_rows::is_source(const nix::store_path& path) {
  return sqlite_query{q_, "SELECT 1 FROM source WHERE path = ?", path}.next();
}

void sqlite_rows::drop_sources(const blob_id& blob) {
  sqlite_query{q_, "DELETE FROM source WHERE blob = ?", blob}.run();
}

} // namespace coppice::store
