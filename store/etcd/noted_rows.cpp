#include "store/etcd/noted_rows.hpp"

#include "messages/wire.hpp"
#include "store/ledger_rules.hpp"

namespace coppice::store::etcd {

footprint::extent footprint::with(const footprint& other) const {
  extent e{guarded.size(), written.size(), bytes_};
  for (auto& cell : other.guarded)
    if (!guarded.contains(cell)) ++e.guards, e.bytes += cell.size();
  for (auto& [cell, value] : other.written) {
    if (!written.contains(cell)) ++e.puts;
    e.bytes += cell.size() + value.size();
  }
  return e;
}

void footprint::absorb(footprint&& other) {
  bytes_ = with(other).bytes;
  guarded.merge(other.guarded);
  for (auto& [cell, value] : other.written)
    written.insert_or_assign(cell, std::move(value));
  for (auto& step : other.undo)
    undo.push_back(std::move(step));
}

void footprint::take_back() {
  for (auto step = undo.rbegin(); step != undo.rend(); ++step)
    (*step)();
  *this = {};
}

footprint noted_rows::take() {
  for (auto& [cell, value] : values_)
    notes_.written.insert_or_assign(cell, value());
  values_.clear();
  return std::exchange(notes_, {});
}

void noted_rows::write(std::string cell, value_of value) {
  read(cell);
  values_.try_emplace(std::move(cell), std::move(value));
}

// sessions

std::optional<session_row> noted_rows::find_session_of(const node_id& node) {
  read(session_cell(node));
  return rows_.find_session_of(node);
}

std::optional<session_row> noted_rows::find_session(const session_id& session) {
  if (session.empty()) return {};
  auto row = rows_.find_session(session);
  if (row)
    read(session_cell(row->node));
  else
    read(holds_cell(session)); // it may have been opened
  return row;
}

void noted_rows::put_session(const session_row& row) {
  auto before = rows_.find_session_of(row.node);
  on_undo([this, before, node = row.node] { before ? rows_.put_session(*before) : rows_.erase_session(node); });
  if (!before || before->session != row.session) touch(holds_cell(row.session));
  write(session_cell(row.node), [this, node = row.node] { return wire::encode(*rows_.find_session_of(node)); });
  rows_.put_session(row);
}

// inhashes

void noted_rows::write_lock(const inhash& key) {
  auto record = rows_.find_record(key);
  if (record)
    on_undo([this, before = *record] { rows_.set_record(before); });
  else
    on_undo([this, key] { rows_.erase_record(key); });
  write(lock_cell(key), [this, key] { return wire::encode(*rows_.find_record(key)); });
}

std::optional<ledger::lock_state> noted_rows::find_lock(const inhash& key) {
  read(lock_cell(key));
  return rows_.find_lock(key);
}

void noted_rows::put_lock(const ledger::lock_state& row) {
  write_lock(row.key);
  if (is_held(row)) touch(holds_cell(row.holder.session));
  rows_.put_lock(row);
  touch_only_wanting(row.key);
}

// It enters the index of those that one request alone wants and that are held.
void noted_rows::touch_only_wanting(const inhash& key) {
  auto& record = *rows_.find_record(key);
  if (is_held(record.state) && record.wanted_by.size() == 1) touch(wants_cell(record.wanted_by.front()));
}

void noted_rows::touch_outputs(const inhash& key) {
  for (auto& o : rows_.find_record(key)->state.outputs) {
    touch_path(o.info.path);
    touch_blob(o.info.blob);
  }
}

void noted_rows::put_outputs(const inhash& key, const std::vector<realised_output>& outputs) {
  write_lock(key);
  touch_outputs(key);
  rows_.put_outputs(key, outputs);
  touch_outputs(key);
}

void noted_rows::put_failure(const inhash& key, const std::optional<ledger::failure_record>& failed) {
  write_lock(key);
  touch(failures_cell);
  rows_.put_failure(key, failed);
}

std::vector<ledger::lock_state> noted_rows::failed_locks(const ledger::read_failures& query) {
  read(failures_cell);
  auto rows = rows_.failed_locks(query);
  for (auto& row : rows)
    read(lock_cell(row.key));
  return rows;
}

std::vector<inhash> noted_rows::realised_by(const blob_id& blob, std::size_t limit) {
  read(blob_cell(blob));
  return rows_.realised_by(blob, limit);
}

std::vector<ledger::lock_state> noted_rows::held_locks(const ledger::held_locks& query) {
  auto rows = rows_.held_locks(query);
  if (!query.session.empty()) read(holds_cell(query.session));
  for (auto& row : rows)
    read(lock_cell(row.key));
  return rows;
}

std::vector<node_id> noted_rows::death_nodes(const inhash& key) {
  read(lock_cell(key));
  return rows_.death_nodes(key);
}

void noted_rows::add_death_node(const inhash& key, const node_id& node) {
  write_lock(key);
  rows_.add_death_node(key, node);
}

void noted_rows::clear_death_nodes(const inhash& key) {
  write_lock(key);
  rows_.clear_death_nodes(key);
}

void noted_rows::put_outbox(const inhash& key, bool waiting) {
  write_lock(key);
  rows_.put_outbox(key, waiting);
}

// requests

void noted_rows::write_request(const request_id& id) {
  write(request_cell(id), [this, id] { return wire::encode(*rows_.read_request(id)); });
  auto before = rows_.read_request(id);
  if (before)
    on_undo([this, before = std::move(*before)] { rows_.set_request(before); });
  else
    on_undo([this, id] { rows_.erase_request(id); });
}

std::optional<request_head> noted_rows::find_request(const request_id& id) {
  read(request_cell(id));
  return rows_.find_request(id);
}

std::optional<ledger::request_row> noted_rows::read_request(const request_id& id) {
  read(request_cell(id));
  return rows_.read_request(id);
}

void noted_rows::add_request(const ledger::request_row& row) {
  on_undo([this, before = rows_.last_request_number()] { rows_.set_last_request_number(before); });
  write_request(row.id);
  write(numbers_cell, [this] { return wire::encode(rows_.last_request_number()); });
  touch_blob(row.body.closure);
  rows_.add_request(row);
}

void noted_rows::put_owner(const request_id& id, const session_id& owner, epoch e) {
  write_request(id);
  if (!owner.empty()) touch(holds_cell(owner));
  rows_.put_owner(id, owner, e);
}

void noted_rows::put_result(const request_id& id, const request_result& result) {
  write_request(id);
  touch_blob(rows_.read_request(id)->body.closure);
  rows_.put_result(id, result);
}

std::uint64_t noted_rows::last_request_number() {
  read(numbers_cell);
  return rows_.last_request_number();
}

std::vector<ledger::request_row> noted_rows::open_requests(std::uint64_t after, std::size_t limit) {
  return rows_.open_requests(after, limit);
}

std::vector<ledger::request_row> noted_rows::ended_requests(std::uint64_t before, std::size_t limit) {
  return rows_.ended_requests(before, limit);
}

std::vector<request_head> noted_rows::requests_owned_by(const session_id& owner, std::size_t limit) {
  read(holds_cell(owner));
  return rows_.requests_owned_by(owner, limit);
}

// interest: kept with the lock; that of requests that are over stays there until the lock is written for another reason

void noted_rows::add_interest(const inhash& key, const request_id& id) {
  auto& wanted_by = rows_.find_record(key)->wanted_by;
  if (std::binary_search(wanted_by.begin(), wanted_by.end(), id)) return;
  write_lock(key);
  touch(wants_cell(id));
  rows_.add_interest(key, id);
}

void noted_rows::drop_interest(const request_id& id) {
  auto keys = rows_.wanted(id);
  rows_.drop_interest(id);
  for (auto& key : keys)
    touch_only_wanting(key);
  on_undo([this, id, keys = std::move(keys)] {
    for (auto& key : keys)
      rows_.add_interest(key, id);
  });
}

bool noted_rows::is_wanted(const inhash& key) {
  read(lock_cell(key));
  auto request = rows_.wanting(key);
  if (request) read(request_cell(*request)); // the others may end: this one decides
  return request != nullptr;
}

std::vector<inhash> noted_rows::held_only_for(const request_id& id, const inhash& after, std::size_t limit) {
  read(wants_cell(id));
  return rows_.held_only_for(id, after, limit);
}

// attempts: they change with their locks only, which guard them

void noted_rows::write_attempt(const inhash& key, fence token) {
  auto before = rows_.find_attempt(key, token);
  if (before)
    on_undo([this, row = *before] { rows_.set_attempt(row); });
  else
    on_undo([this, key, token] { rows_.erase_attempt(key, token); });
  values_.try_emplace(attempt_cell(key, token),
                      [this, key, token] { return wire::encode(*rows_.find_attempt(key, token)); });
}

void noted_rows::add_attempt(const ledger::attempt_row& row) {
  write_attempt(row.key, row.token);
  rows_.add_attempt(row);
}

void noted_rows::end_attempt(const inhash& key, fence token, const attempt_end& end) {
  if (auto row = rows_.find_attempt(key, token); !row || row->ended_ms) return;
  write_attempt(key, token);
  rows_.end_attempt(key, token, end);
}

// blobs and paths

void noted_rows::touch_blob(const blob_id& blob) {
  if (!rows_.find_blob(blob)) return read(blob_cell(blob)); // what was never put is not condemned for being named
  write(blob_cell(blob), [this, blob] { return wire::encode(*rows_.find_blob(blob)); });
}

void noted_rows::touch_path(const nix::store_path& path) {
  write(path_cell(path), [this, path] { return encode_source(rows_.find_source(path)); });
}

std::optional<blob_row> noted_rows::find_blob(const blob_id& blob) {
  read(blob_cell(blob));
  return rows_.find_blob(blob);
}

void noted_rows::put_blob(const blob_row& row) {
  auto before = rows_.find_blob(row.blob);
  on_undo([this, before, blob = row.blob] { before ? rows_.put_blob(*before) : rows_.erase_blob(blob); });
  rows_.put_blob(row);
  touch_blob(row.blob);
}

bool noted_rows::is_blob_named(const blob_id& blob) {
  read(blob_cell(blob));
  return rows_.is_blob_named(blob);
}

std::optional<path_info> noted_rows::find_path(const nix::store_path& path) {
  read(path_cell(path));
  return rows_.find_path(path);
}

bool noted_rows::is_source(const nix::store_path& path) {
  read(path_cell(path));
  return rows_.is_source(path);
}

void noted_rows::put_source(const path_info& info) {
  on_undo([this, path = info.path] { rows_.erase_source(path); });
  touch_path(info.path);
  touch_blob(info.blob);
  rows_.put_source(info);
}

void noted_rows::drop_sources(const blob_id& blob) {
  for (auto& path : rows_.sources_in(blob)) {
    on_undo([this, info = *rows_.find_source(path)] { rows_.put_source(info); });
    touch_path(path);
  }
  rows_.drop_sources(blob);
}

} // namespace coppice::store::etcd
