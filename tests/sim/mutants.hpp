#pragma once

#include "store/ledger_rules.hpp"

#include <string_view>

namespace coppice::sim {

/// How a farm is broken on purpose, to see that it is noticed.
enum class mutant {
  none,
  token_not_compared,    ///< whoever speaks of a lock is believed to have its token
  answer_before_commit,  ///< a batch is durable only when the next one is
  reclaim_without_token, ///< who comes back goes on under a token that somebody else may have
  deletion_by_name,      ///< a blob that was condemned comes back under the same name
};
std::string_view to_string(mutant m);

/// Whether it may change rows.
bool writes(const ledger::any_transaction& t);
/// Applies a transaction as a ledger with this fault does.
store::ledger_rules::answer apply_broken(mutant broken, const ledger::any_transaction& t, store::ledger_rules rules,
                                         store::ledger_rows& rows, store::ledger_changes& changes);

} // namespace coppice::sim
