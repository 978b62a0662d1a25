#pragma once

#include "store/ledger_rules.hpp"
#include "tests/sim/blobs.hpp"
#include "tests/sim/builders.hpp"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace coppice::sim {

/// Watches the ledger, the store and the builders of a farm, and says which of its promises are broken
/// (docs/reliability.md 3). Believes nobody: it looks at what was changed, not at what the rules think of it.
class invariants final : public build_observer {
public:
  invariants(timeline& time, const blob_disk& blobs) : time_(time), blobs_(blobs) {}

  /// A line for each promise that was broken.
  const std::vector<std::string>& violations() const { return violations_; }
  void broken(const std::string& invariant, const std::string& what);

  /// One transaction was run; `changes` are its own.
  void applied(const ledger::any_transaction& t, const store::ledger_rules::answer& answer,
               const store::ledger_changes& changes, store::ledger_rows& rows);
  /// The ledger was opened again, and has these rows.
  void reopened(store::ledger_rows& rows);
  /// A blob was removed from the store, by somebody who may.
  void removed(const std::string& key, const std::string& bytes);
  /// The disk loses or spoils this blob: what was promised of it is void.
  void spoilt(const std::string& key) { spoilt_.insert(key); }
  bool is_spoilt(const std::string& key) const { return spoilt_.contains(key); }
  /// A client was told so.
  void told(const request_result& result, const request_id& id);
  /// Builders may run side by side (INV-1t is off): clocks or watchdogs do not keep what it stands on.
  void excuse_side_by_side() { side_by_side_ = true; }

  void runs(const std::string& machine, const std::string& out) override;
  void rests(const std::string& machine, const std::string& out) override;
  void made(const std::string& machine, const std::string& out, const std::string& text) override;

  /// When nothing is under way any more: all rows and all that the store shows.
  void at_rest(store::ledger_rows& rows);

  std::uint64_t builds_made() const { return builds_made_; }
  std::uint64_t transactions() const { return transactions_; }
  std::uint64_t changes() const { return changes_; }

private:
  void check_lock(const ledger::any_transaction& t, const ledger::lock_state& before, const ledger::lock_state& after);
  void check_bytes(const char* when, const path_info& info);
  void check_narinfo(const char* when, const path_info& info);
  void check_request(const request_id& id, store::ledger_rows& rows);
  void check_success(const ledger::request_row& row, store::ledger_rows& rows);

  timeline& time_;
  const blob_disk& blobs_;
  std::vector<std::string> violations_;
  std::map<inhash, ledger::lock_state> locks_;
  std::map<request_id, ledger::request_row> requests_;
  std::map<request_id, request_result> told_;
  std::set<std::string> spoilt_;
  std::map<std::string, std::set<std::string>> running_; ///< output to machines
  /// Machines, and what was cancelled while they built it: until they hear of that they go on.
  std::set<std::pair<std::string, std::string>> revoked_;
  std::map<std::string, std::set<nar_hash>> made_;       ///< output to what builders made of it
  std::map<blob_id, std::pair<nar_hash, std::uint64_t>> unpacked_;
  bool side_by_side_ = false;
  std::uint64_t builds_made_ = 0, transactions_ = 0, changes_ = 0;
};

/// The NAR hash of a file with this text.
nar_hash nar_hash_of_file(const std::string& text);

} // namespace coppice::sim
