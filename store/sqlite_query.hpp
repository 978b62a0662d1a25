#pragma once

#include "messages/ids.hpp"
#include "messages/store_path.hpp"
#include "store/ledger.hpp"

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <type_traits>

namespace coppice::store {

/// Bytes that are no text.
struct sqlite_blob {
  std::string bytes;
};

/// One connection's prepared statements, each prepared once.
class sqlite_statements {
public:
  explicit sqlite_statements(SQLite::Database& db) : db_(db) {}
  /// `sql` is a literal: its address is the key.
  SQLite::Statement& get(const char* sql) {
    auto found = statements_.find(sql);
    if (found == statements_.end()) found = statements_.try_emplace(sql, db_, sql).first;
    return found->second;
  }

private:
  SQLite::Database& db_;
  std::map<const char*, SQLite::Statement> statements_;
};

/// One use of a prepared statement: bound by the constructor, reset by the destructor, so that no read stays open.
/// Ids are BLOBs, NULL comes back as the empty one; numbers beyond 2⁶³ come back as they were. Throws
/// SQLite::Exception, and ledger_io_error if a row holds what cannot be.
class sqlite_query {
public:
  template <class... Ts>
  sqlite_query(sqlite_statements& statements, const char* sql, const Ts&... values) : s_(statements.get(sql)) {
    int index = 0;
    (put(++index, values), ...);
  }
  ~sqlite_query() { s_.tryReset(); }
  sqlite_query(const sqlite_query&) = delete;
  sqlite_query& operator=(const sqlite_query&) = delete;

  /// Moves to the next row, the first one included; false at the end.
  bool next() {
    column_ = 0;
    return s_.executeStep();
  }
  /// Runs a statement that returns no rows.
  void run() { s_.exec(); }

  /// The next column of the row.
  template <class T>
  T take() {
    auto column = s_.getColumn(column_++);
    if constexpr (std::is_same_v<T, std::string>)
      return column.getString();
    else if constexpr (std::is_same_v<T, bool>)
      return column.getInt64() != 0;
    else if constexpr (std::is_enum_v<T> || std::is_integral_v<T>)
      return static_cast<T>(column.getInt64());
    else if constexpr (is_number_id<T>)
      return T{static_cast<std::uint64_t>(column.getInt64())};
    else if constexpr (is_text_id<T>)
      return T{column.getString()};
    else if constexpr (std::is_same_v<T, nix::store_path>)
      return path_of(column.getString());
    else {
      static_assert(is_bytes_id<T>);
      T id;
      if (column.isNull()) return id;
      if (column.getBytes() != static_cast<int>(id.bytes.size()))
        throw ledger_io_error(ec::corrupt,
                              "the ledger's row holds an id of " + std::to_string(column.getBytes()) + " bytes");
      std::memcpy(id.bytes.data(), column.getBlob(), id.bytes.size());
      return id;
    }
  }
  /// The next column, or nothing if it is NULL.
  template <class T>
  std::optional<T> take_optional() {
    if (!s_.getColumn(column_).isNull()) return take<T>();
    ++column_;
    return {};
  }

private:
  template <class T>
  void put(int index, const T& value) {
    if constexpr (is_bytes_id<T>)
      s_.bind(index, value.bytes.data(), static_cast<int>(value.bytes.size()));
    else if constexpr (is_number_id<T>)
      s_.bind(index, static_cast<std::int64_t>(value.value));
    else if constexpr (is_text_id<T>)
      s_.bind(index, value.value);
    else if constexpr (std::is_same_v<T, nix::store_path>)
      s_.bind(index, value.base_name());
    else if constexpr (std::is_same_v<T, std::string>)
      s_.bind(index, value);
    else if constexpr (std::is_same_v<T, sqlite_blob>)
      s_.bind(index, value.bytes.data(), static_cast<int>(value.bytes.size()));
    else
      s_.bind(index, static_cast<std::int64_t>(value));
  }
  template <class T>
  void put(int index, const std::optional<T>& value) {
    if (value)
      put(index, *value);
    else
      s_.bind(index);
  }
  static nix::store_path path_of(const std::string& base_name) {
    auto path = nix::store_path::from_base_name(base_name);
    if (!path) throw ledger_io_error(ec::corrupt, "the ledger's row holds '" + base_name + "', which is no store path");
    return *std::move(path);
  }

  SQLite::Statement& s_;
  int column_ = 0;
};

} // namespace coppice::store
