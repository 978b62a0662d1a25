#pragma once

#include "store/ledger_rows.hpp"

#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace coppice::store {

/// All that is kept of one inhash, in one piece.
struct lock_record {
  ledger::lock_state state;
  std::vector<node_id> deaths;       ///< nodes on which an attempt ended as infra, by name
  std::vector<request_id> wanted_by; ///< open requests, in order
  std::uint64_t outbox_place = 0;    ///< 0: not in the outbox
  COPPICE_STRUCT(lock_record, 1, state, 2, deaths, 3, wanted_by, 4, outbox_place)
};

/// The ledger's rows in memory. Beside what the rules ask for, rows can be set and erased whole.
class memory_rows final : public ledger_rows {
public:
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
  std::uint64_t last_request_number() override { return last_number_; }
  std::vector<ledger::request_row> open_requests(std::uint64_t after, std::size_t limit) override;
  std::vector<ledger::request_row> ended_requests(std::uint64_t before, std::size_t limit) override;
  std::vector<request_head> requests_owned_by(const session_id& owner, std::size_t limit) override;

  void add_interest(const inhash& key, const request_id& id) override;
  void drop_interest(const request_id& id) override;
  bool is_wanted(const inhash& key) override { return wanting(key) != nullptr; }
  std::vector<inhash> held_only_for(const request_id& id, const inhash& after, std::size_t limit) override;

  void add_attempt(const ledger::attempt_row& row) override { set_attempt(row); }
  void end_attempt(const inhash& key, fence token, const attempt_end& end) override;
  std::vector<ledger::attempt_row> attempts(const ledger::read_attempts& query) override;
  std::vector<std::int64_t> durations_ms(const std::string& name, std::size_t limit) override;

  std::optional<blob_row> find_blob(const blob_id& blob) override;
  void put_blob(const blob_row& row) override { blobs_.insert_or_assign(row.blob, row); }
  bool is_blob_named(const blob_id& blob) override;
  std::optional<path_info> find_path(const nix::store_path& path) override;
  node_id builder_of(const nix::store_path& path) override;
  void put_source(const path_info& info) override;
  bool is_source(const nix::store_path& path) override { return sources_.contains(path); }
  void drop_sources(const blob_id& blob) override;

  // rows as a whole, whatever they were

  void erase_session(const node_id& node);
  const lock_record* find_record(const inhash& key) const;
  /// Interest of requests that have ended is left out.
  void set_record(const lock_record& record);
  void erase_record(const inhash& key);
  void set_request(const ledger::request_row& row);
  void erase_request(const request_id& id);
  void set_last_request_number(std::uint64_t number) { last_number_ = number; }
  const ledger::attempt_row* find_attempt(const inhash& key, fence token) const;
  void set_attempt(const ledger::attempt_row& row);
  void erase_attempt(const inhash& key, fence token);
  void erase_blob(const blob_id& blob) { blobs_.erase(blob); }
  const path_info* find_source(const nix::store_path& path) const;
  void erase_source(const nix::store_path& path);
  std::vector<nix::store_path> sources_in(const blob_id& blob) const;
  /// The inhashes that this request wants, in order.
  std::vector<inhash> wanted(const request_id& id) const;
  /// One of the open requests that want it; null if there is none.
  const request_id* wanting(const inhash& key) const;

private:
  using failure_place = std::pair<std::int64_t, inhash>; // newest first
  /// A blob, the path that is in it, and whose output that is; of a source with an empty inhash.
  using naming = std::tuple<blob_id, nix::store_path, inhash>;
  /// Their order, with the blob alone as a key to look for.
  struct by_blob {
    using is_transparent = void;
    bool operator()(const naming& a, const naming& b) const { return a < b; }
    bool operator()(const naming& a, const blob_id& b) const { return std::get<0>(a) < b; }
    bool operator()(const blob_id& a, const naming& b) const { return a < std::get<0>(b); }
  };

  void index(const lock_record& record);
  void unindex(const lock_record& record);
  /// Lets `change` alter the record under its indexes.
  template <class Change>
  void alter(const inhash& key, Change change);
  void index(const ledger::attempt_row& row);
  void unindex(const ledger::attempt_row& row);

  std::map<node_id, session_row> sessions_;
  std::map<session_id, node_id> nodes_;
  std::unordered_map<inhash, lock_record> locks_;
  std::set<std::pair<session_id, inhash>> held_;
  std::set<failure_place> failed_;
  std::set<std::pair<nix::store_path, inhash>> outputs_by_path_;
  std::set<naming, by_blob> named_;
  std::set<std::pair<std::uint64_t, inhash>> outbox_;
  std::map<request_id, ledger::request_row> requests_;
  std::map<std::uint64_t, request_id> open_;
  std::map<std::uint64_t, request_id> ended_;
  std::uint64_t last_number_ = 0;
  std::set<std::pair<request_id, inhash>> wants_;
  std::map<std::pair<inhash, fence>, ledger::attempt_row> attempts_;
  std::set<std::tuple<std::int64_t, inhash, fence>> by_start_;
  /// By name without version: (end, start), key and token of those that succeeded.
  std::map<std::string, std::set<std::tuple<std::int64_t, std::int64_t, inhash, fence>>> succeeded_;
  std::unordered_map<blob_id, blob_row> blobs_;
  std::map<nix::store_path, path_info> sources_;
};

} // namespace coppice::store
