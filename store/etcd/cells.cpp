#include "store/etcd/cells.hpp"

#include "messages/wire.hpp"
#include "store/ledger.hpp"

#include <array>

namespace coppice::store::etcd {

namespace {

constexpr std::string_view session_kind = "session/", holds_kind = "holds/", lock_kind = "lock/",
                           attempt_kind = "attempt/", request_kind = "request/", wants_kind = "wants/",
                           blob_kind = "blob/", path_kind = "path/";
/// Tokens are written so that their order is that of the keys.
constexpr std::size_t token_digits = 20;

std::string named(std::string_view kind, std::string_view name) {
  return std::string(kind).append(name);
}

} // namespace

std::string session_cell(const node_id& node) {
  return named(session_kind, node.value);
}
std::string holds_cell(const session_id& session) {
  return named(holds_kind, session.to_string());
}
std::string lock_cell(const inhash& key) {
  return named(lock_kind, key.to_string());
}
std::string attempt_cell(const inhash& key, fence token) {
  auto digits = std::to_string(token.value);
  return named(attempt_kind, key.to_string()) + "/" + std::string(token_digits - digits.size(), '0') + digits;
}
std::string request_cell(const request_id& id) {
  return named(request_kind, id.to_string());
}
std::string wants_cell(const request_id& id) {
  return named(wants_kind, id.to_string());
}
std::string blob_cell(const blob_id& blob) {
  return named(blob_kind, blob.to_string());
}
std::string path_cell(const nix::store_path& path) {
  return named(path_kind, path.base_name());
}

std::string_view inhash_in(std::string_view cell) {
  for (auto kind : {lock_kind, attempt_kind})
    if (cell.starts_with(kind)) return cell.substr(kind.size(), 2 * sizeof(inhash::bytes));
  return {};
}

std::optional<request_id> request_in(std::string_view cell) {
  if (!cell.starts_with(request_kind)) return {};
  auto id = request_id::parse(cell.substr(request_kind.size()));
  return id ? std::optional{*id} : std::nullopt;
}

bool is_guarded(std::string_view cell) {
  return !cell.starts_with(attempt_kind);
}

std::string encode_source(const path_info* source) {
  return source ? wire::encode(*source) : std::string{};
}

template <class T>
T decode_cell(std::string_view cell, std::string_view value) {
  // written by us, within the wire's limits one by one: together they may be more
  auto x = wire::decode<T>(value, {.elements_max = 1 << 24, .string_bytes_max = 64 << 20});
  if (!x) throw ledger_io_error(ec::corrupt, "the ledger's row " + std::string(cell) + " in etcd: " + x.error().what);
  return *std::move(x);
}
template meta_row decode_cell(std::string_view cell, std::string_view value);

void load_cell(memory_rows& rows, std::string_view cell, std::string_view value) {
  if (cell.starts_with(lock_kind)) return rows.set_record(decode_cell<lock_record>(cell, value));
  if (cell.starts_with(attempt_kind)) return rows.set_attempt(decode_cell<ledger::attempt_row>(cell, value));
  if (cell.starts_with(blob_kind)) return rows.put_blob(decode_cell<blob_row>(cell, value));
  if (cell.starts_with(request_kind)) return rows.set_request(decode_cell<ledger::request_row>(cell, value));
  if (cell.starts_with(session_kind)) return rows.put_session(decode_cell<session_row>(cell, value));
  if (cell == numbers_cell) return rows.set_last_request_number(decode_cell<std::uint64_t>(cell, value));
  if (!cell.starts_with(path_kind)) return; // of no row
  auto path = nix::store_path::from_base_name(cell.substr(path_kind.size()));
  if (!path)
    throw ledger_io_error(ec::corrupt, "the ledger's row " + std::string(cell) + " in etcd: " + path.error().what);
  if (value.empty()) return rows.erase_source(*path);
  rows.put_source(decode_cell<path_info>(cell, value));
}

bool is_lasting(std::string_view cell) {
  for (auto kind : {lock_kind, attempt_kind, path_kind, holds_kind, wants_kind, blob_kind, request_kind, session_kind})
    if (cell.starts_with(kind)) return true;
  return cell == meta_cell || cell == numbers_cell || cell == failures_cell;
}

int write_rank(std::string_view cell) {
  const std::array order{
      lock_kind,    attempt_kind, path_kind, holds_kind, wants_kind, blob_kind, std::string_view{numbers_cell},
      request_kind, session_kind};
  for (std::size_t i = 0; i < order.size(); ++i)
    if (cell.starts_with(order[i])) return i < 2 ? 0 : static_cast<int>(i);
  return static_cast<int>(order.size());
}

} // namespace coppice::store::etcd
