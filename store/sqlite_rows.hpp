#pragma once

#include "store/ledger_rows.hpp"
#include "store/sqlite_query.hpp"

namespace coppice::store {

/// The version of the schema below; a ledger of any other one is refused.
inline constexpr int sqlite_schema_version = 4;
/// Creates the tables of an empty database, and views that spell ids and enums out for sqlite3(1).
void create_sqlite_schema(SQLite::Database& db);

/// The ledger's rows in SQLite, on a connection with an open transaction. Throws SQLite::Exception.
class sqlite_rows final : public ledger_rows {
public:
  explicit sqlite_rows(SQLite::Database& db) : q_(db) {}

  std::optional<session_row> find_session_of(const node_id& node) override;
  std::optional<session_row> find_session(const session_id& session) override;
  void put_session(const session_row& row) override;
  std::vector<session_id> live_sessions() override;

  std::optional<ledger::lock_state> find_lock(const inhash& key) override;
  void put_lock(const ledger::lock_state& row) override;
  void put_outputs(const inhash& key, const std::vector<realised_output>& outputs) override;
  void put_failure(const inhash& key, const std::optional<ledger::failure_record>& failed) override;
  std::vector<ledger::lock_state> failed_locks(const ledger::read_failures& query) override;
  std::vector<inhash> realised_by(const blob_id& blob, std::size_t limit) override;
  std::vector<ledger::lock_state> held_locks(const ledger::held_locks& query) override;
  std::vector<node_id> death_nodes(const inhash& key) override;
  void add_death_node(const inhash& key, const node_id& node) override;
  void clear_death_nodes(const inhash& key) override;
  void put_outbox(const inhash& key, bool waiting) override;
  std::vector<inhash> outbox(std::size_t limit) override;

  std::optional<request_head> find_request(const request_id& id) override;
  std::optional<ledger::request_row> read_request(const request_id& id) override;
  void add_request(const ledger::request_row& row) override;
  void put_owner(const request_id& id, const session_id& owner, epoch e) override;
  void put_result(const request_id& id, const request_result& result) override;
  std::uint64_t last_request_number() override;
  std::vector<ledger::request_row> open_requests(std::uint64_t after, std::size_t limit) override;
  std::vector<ledger::request_row> ended_requests(std::uint64_t before, std::size_t limit) override;
  std::vector<request_head> requests_owned_by(const session_id& owner, std::size_t limit) override;

  void add_interest(const inhash& key, const request_id& id) override;
  void drop_interest(const request_id& id) override;
  bool is_wanted(const inhash& key) override;
  std::vector<inhash> held_only_for(const request_id& id, const inhash& after, std::size_t limit) override;

  void add_attempt(const ledger::attempt_row& row) override;
  void end_attempt(const inhash& key, fence token, const attempt_end& end) override;
  std::vector<ledger::attempt_row> attempts(const ledger::read_attempts& query) override;
  std::vector<std::int64_t> durations_ms(const std::string& name, std::size_t limit) override;

  std::optional<blob_row> find_blob(const blob_id& blob) override;
  void put_blob(const blob_row& row) override;
  bool is_blob_named(const blob_id& blob) override;
  std::optional<path_info> find_path(const nix::store_path& path) override;
  node_id builder_of(const nix::store_path& path) override;
  void put_source(const path_info& info) override;
  bool is_source(const nix::store_path& path) override;
  void drop_sources(const blob_id& blob) override;

private:
  std::vector<realised_output> outputs_of(const inhash& key);

  sqlite_statements q_;
};

} // namespace coppice::store
