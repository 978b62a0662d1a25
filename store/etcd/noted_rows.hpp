#pragma once

#include "store/etcd/cells.hpp"

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace coppice::store::etcd {

/// What transactions have read and written, by cell.
struct footprint {
  std::set<std::string> guarded;              ///< what they decided by, and what they wrote
  std::map<std::string, std::string> written; ///< the values, as they are now
  std::vector<std::function<void()>> undo;    ///< from the last to the first, puts the rows back as they were

  bool empty() const { return guarded.empty() && written.empty(); }
  /// How large it would be with another one.
  struct extent {
    std::size_t guards = 0, puts = 0, bytes = 0;
  };
  extent with(const footprint& other) const;
  /// The other one happened after this one.
  void absorb(footprint&& other);
  void take_back();

private:
  std::size_t bytes_ = 0;
};

/// Rows in memory which note what is done with them.
class noted_rows final : public ledger_rows {
public:
  explicit noted_rows(memory_rows& rows) : rows_(rows) {}

  /// What was done since the last call.
  footprint take();

  std::optional<session_row> find_session_of(const node_id& node) override;
  std::optional<session_row> find_session(const session_id& session) override;
  void put_session(const session_row& row) override;
  std::vector<session_id> live_sessions() override { return rows_.live_sessions(); }

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
  std::vector<inhash> outbox(std::size_t limit) override { return rows_.outbox(limit); }

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
  std::vector<ledger::attempt_row> attempts(const ledger::read_attempts& query) override {
    return rows_.attempts(query);
  }
  std::vector<std::int64_t> durations_ms(const std::string& name, std::size_t limit) override {
    return rows_.durations_ms(name, limit);
  }

  std::optional<blob_row> find_blob(const blob_id& blob) override;
  void put_blob(const blob_row& row) override;
  bool is_blob_named(const blob_id& blob) override;
  std::optional<path_info> find_path(const nix::store_path& path) override;
  node_id builder_of(const nix::store_path& path) override { return rows_.builder_of(path); }
  void put_source(const path_info& info) override;
  bool is_source(const nix::store_path& path) override;
  void drop_sources(const blob_id& blob) override;

private:
  using value_of = std::function<std::string()>;

  void read(std::string cell) { notes_.guarded.insert(std::move(cell)); }
  void write(std::string cell, value_of value);
  /// Its value is of no interest, only that it changed.
  void touch(std::string cell) {
    write(std::move(cell), [] { return std::string{}; });
  }
  void write_lock(const inhash& key);
  void write_request(const request_id& id);
  void write_attempt(const inhash& key, fence token);
  /// Something begins or ceases to name this blob.
  void touch_blob(const blob_id& blob);
  void touch_path(const nix::store_path& path);
  void touch_outputs(const inhash& key);
  void touch_only_wanting(const inhash& key);
  void on_undo(std::function<void()> step) { notes_.undo.push_back(std::move(step)); }

  memory_rows& rows_;
  footprint notes_;
  std::map<std::string, value_of> values_; ///< of what was written
};

} // namespace coppice::store::etcd
