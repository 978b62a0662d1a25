#pragma once

#include "messages/ledger.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace coppice::store {

/// What the ledger knows of a node: its newest session, kept after its end so that older incarnations are refused.
struct session_row {
  node_id node;
  coppice::incarnation incarnation;
  session_id session;
  bool over = false; ///< its lease ended
  std::int64_t opened_ms = 0;
  std::string url; ///< see ledger::open_session
  COPPICE_STRUCT(session_row, 1, node, 2, incarnation, 3, session, 4, over, 5, opened_ms, 6, url)
};

/// A request without its body and result, which most transactions need not read.
struct request_head {
  request_id id;
  std::string client;
  request_state state = request_state::open;
  session_id owner;
  coppice::epoch epoch;
  std::uint64_t number = 0;
};

/// A blob's name and its present life.
struct blob_row {
  blob_id blob;
  generation gen;
  bool present = false;
  std::uint64_t size = 0;
  COPPICE_STRUCT(blob_row, 1, blob, 2, gen, 3, present, 4, size)
};

/// How an attempt ended; an empty reason keeps the one it began with.
struct attempt_end {
  std::int64_t ended_ms = 0;
  failure result = failure::none;
  std::string reason;
  build_usage usage;
};

/// The ledger's rows, as its rules see them: by key, and by the few questions that need an index. Every list is
/// ordered, so that all backends answer alike, and at most `limit` long. A backend decides nothing.
class ledger_rows {
public:
  virtual ~ledger_rows() = default;

  // sessions: one row per node

  virtual std::optional<session_row> find_session_of(const node_id& node) = 0;
  virtual std::optional<session_row> find_session(const session_id& session) = 0;
  /// Replaces the node's row.
  virtual void put_session(const session_row& row) = 0;
  /// Those that are not over, by node.
  virtual std::vector<session_id> live_sessions() = 0;

  // inhashes

  virtual std::optional<ledger::lock_state> find_lock(const inhash& key) = 0;
  /// Writes the row without its outputs and its failure, which change rarely and on their own.
  virtual void put_lock(const ledger::lock_state& row) = 0;
  /// Replaces all realisation rows of the inhash; none: they are retired.
  virtual void put_outputs(const inhash& key, const std::vector<realised_output>& outputs) = 0;
  virtual void put_failure(const inhash& key, const std::optional<ledger::failure_record>& failed) = 0;
  /// Rows with a failure; newest failure first, then by inhash.
  virtual std::vector<ledger::lock_state> failed_locks(const ledger::read_failures& query) = 0;
  /// Inhashes with an output in this blob, in order.
  virtual std::vector<inhash> realised_by(const blob_id& blob, std::size_t limit) = 0;
  /// Queued, building or partial; by session, then inhash.
  virtual std::vector<ledger::lock_state> held_locks(const ledger::held_locks& query) = 0;
  /// Nodes on which an attempt at it ended as infra, by name.
  virtual std::vector<node_id> death_nodes(const inhash& key) = 0;
  virtual void add_death_node(const inhash& key, const node_id& node) = 0;
  virtual void clear_death_nodes(const inhash& key) = 0;

  /// Enters it into the outbox, behind all others, or takes it out.
  virtual void put_outbox(const inhash& key, bool waiting) = 0;
  /// Oldest first.
  virtual std::vector<inhash> outbox(std::size_t limit) = 0;

  // requests

  virtual std::optional<request_head> find_request(const request_id& id) = 0;
  virtual std::optional<ledger::request_row> read_request(const request_id& id) = 0;
  /// A new one, with all its fields.
  virtual void add_request(const ledger::request_row& row) = 0;
  /// Owner and epoch of a request that exists.
  virtual void put_owner(const request_id& id, const session_id& owner, epoch e) = 0;
  virtual void put_result(const request_id& id, const request_result& result) = 0;
  /// The highest number a request ever got; 0 if there was none.
  virtual std::uint64_t last_request_number() = 0;
  /// Those numbered above `after`, oldest first.
  virtual std::vector<ledger::request_row> open_requests(std::uint64_t after, std::size_t limit) = 0;
  /// Those numbered below `before` (0: from the newest), newest first.
  virtual std::vector<ledger::request_row> ended_requests(std::uint64_t before, std::size_t limit) = 0;
  /// Open ones with this owner, oldest first.
  virtual std::vector<request_head> requests_owned_by(const session_id& owner, std::size_t limit) = 0;

  // interest: which open requests want which inhashes

  virtual void add_interest(const inhash& key, const request_id& id) = 0;
  virtual void drop_interest(const request_id& id) = 0;
  virtual bool is_wanted(const inhash& key) = 0;
  /// Held locks that this request wants and no other, by inhash, behind `after`.
  virtual std::vector<inhash> held_only_for(const request_id& id, const inhash& after, std::size_t limit) = 0;

  // attempts: append-only, but for their end

  virtual void add_attempt(const ledger::attempt_row& row) = 0;
  /// Ends the attempt under this token, unless it has ended or there is none.
  virtual void end_attempt(const inhash& key, fence token, const attempt_end& end) = 0;
  /// Newest first: of one inhash by token, else by start, inhash and token.
  virtual std::vector<ledger::attempt_row> attempts(const ledger::read_attempts& query) = 0;
  /// Of the last `limit` successful attempts at derivations of this name (without version), by their ends.
  virtual std::vector<std::int64_t> durations_ms(const std::string& name, std::size_t limit) = 0;

  // blobs and paths

  virtual std::optional<blob_row> find_blob(const blob_id& blob) = 0;
  virtual void put_blob(const blob_row& row) = 0;
  /// Does a realisation, a source, or the closure of an open request name it?
  virtual bool is_blob_named(const blob_id& blob) = 0;
  /// As a source, or else as an output.
  virtual std::optional<path_info> find_path(const nix::store_path& path) = 0;
  /// The node in the row of the (first, by key) inhash that has this output; empty if none has.
  virtual node_id builder_of(const nix::store_path& path) = 0;
  virtual void put_source(const path_info& info) = 0;
  virtual bool is_source(const nix::store_path& path) = 0;
  /// Forgets the sources in this blob.
  virtual void drop_sources(const blob_id& blob) = 0;
};

/// Rows that die with their process: of the memory ledger and of simulations.
std::unique_ptr<ledger_rows> make_memory_rows();

} // namespace coppice::store
