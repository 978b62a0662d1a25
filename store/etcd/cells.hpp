#pragma once

#include "store/memory_rows.hpp"

#include <string>
#include <string_view>

/// A cell is one key of etcd, without the ledger's prefix; each row of the ledger is one. None is ever deleted: the
/// revision of its last change only grows, so that a guard on it can hold once at most. The value is the row's msgpack.
/// Cells without a row guard an index: they change whenever something enters it or leaves it, and who decides by what
/// is in the index reads them.
namespace coppice::store::etcd {

inline const std::string meta_cell = "meta";
inline const std::string farm_identity_cell = "farm"; ///< of a hub that may run on several machines; no row
inline const std::string writer_cell = "writer";
inline const std::string regressed_cell = "regressed"; ///< why nobody may open this ledger any more; no row
inline const std::string numbers_cell = "requests";    ///< the highest number a request ever got
inline const std::string failures_cell = "failures";   ///< index: the inhashes with a failure
std::string session_cell(const node_id& node);
std::string holds_cell(const session_id& session); ///< index: what a session holds and owns, and whose it is
std::string lock_cell(const inhash& key);
std::string attempt_cell(const inhash& key, fence token);
std::string request_cell(const request_id& id);
std::string wants_cell(const request_id& id);       ///< index: the inhashes that a request wants
std::string blob_cell(const blob_id& blob);         ///< also the index of what names the blob
std::string path_cell(const nix::store_path& path); ///< a source, or nothing; also the index of outputs with this path

/// The hex digits of the inhash in the name of a lock's or an attempt's cell; empty for others.
std::string_view inhash_in(std::string_view cell);
/// The request whose row the cell is.
std::optional<request_id> request_in(std::string_view cell);
/// Attempts change with their locks only, which guard them.
bool is_guarded(std::string_view cell);

std::string encode_source(const path_info* source);
/// Puts what was read from a cell into the rows. Throws ledger_io_error if it does not decode.
void load_cell(memory_rows& rows, std::string_view cell, std::string_view value);

/// A cell of the ledger's own that is never deleted, whatever else lies below its prefix.
bool is_lasting(std::string_view cell);

/// In which order cells are written by a transaction that is larger than etcd takes at once: what is left behind if it
/// ends in the middle must be right in itself, and asking again must do the rest. So what the transaction frees comes
/// first, and what says that it happened comes last.
int write_rank(std::string_view cell);

/// What the ledger as a whole is known by.
struct meta_row {
  std::uint32_t version = 0;
  std::string lineage;
  COPPICE_STRUCT(meta_row, 1, version, 2, lineage)
};
inline constexpr std::uint32_t schema_version = 1;

/// Reads a cell's value; `corrupt` as ledger_io_error.
template <class T>
T decode_cell(std::string_view cell, std::string_view value);

} // namespace coppice::store::etcd
