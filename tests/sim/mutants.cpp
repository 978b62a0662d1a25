#include "tests/sim/mutants.hpp"

namespace coppice::sim {

namespace {

ledger::any_transaction with_current_token(ledger::any_transaction t, store::ledger_rows& rows) {
  std::visit(
      [&](auto& x) {
        if constexpr (requires {
                        x.key;
                        x.token;
                      })
          if (const auto row = rows.find_lock(x.key)) x.token = row->token;
      },
      t);
  return t;
}

void take_token_back(const inhash& key, store::ledger_rules::answer& answer, store::ledger_rows& rows,
                     store::ledger_changes& changes) {
  auto row = rows.find_lock(key).value();
  --row.token.value;
  rows.put_lock(row);
  changes.locks.insert_or_assign(key, row);
  answer = ledger::granted{row.token};
}

const blob_id* condemned_by(const ledger::any_transaction& t) {
  if (auto* c = std::get_if<ledger::condemn>(&t)) return &c->blob;
  if (auto* g = std::get_if<ledger::gone>(&t)) return &g->blob;
  return nullptr;
}

} // namespace

std::string_view to_string(mutant m) {
  switch (m) {
  case mutant::none: return "none";
  case mutant::token_not_compared: return "token not compared";
  case mutant::answer_before_commit: return "answer before commit";
  case mutant::reclaim_without_token: return "reclaim without a new token";
  case mutant::deletion_by_name: return "deletion by name";
  }
  return "?";
}

bool writes(const ledger::any_transaction& t) {
  return !(std::holds_alternative<ledger::stat_blob>(t) || std::holds_alternative<ledger::read_locks>(t) ||
           std::holds_alternative<ledger::held_locks>(t) || std::holds_alternative<ledger::outbox>(t) ||
           std::holds_alternative<ledger::read_requests>(t) || std::holds_alternative<ledger::read_attempts>(t) ||
           std::holds_alternative<ledger::read_paths>(t) || std::holds_alternative<ledger::read_durations>(t) ||
           std::holds_alternative<ledger::read_failures>(t) || std::holds_alternative<ledger::keep_alive>(t));
}

store::ledger_rules::answer apply_broken(mutant broken, const ledger::any_transaction& t, store::ledger_rules rules,
                                         store::ledger_rows& rows, store::ledger_changes& changes) {
  if (broken == mutant::token_not_compared) return rules.apply(with_current_token(t, rows));
  const auto* blob = broken == mutant::deletion_by_name ? condemned_by(t) : nullptr;
  const auto before = blob ? rows.find_blob(*blob) : std::nullopt;
  auto answer = rules.apply(t);
  auto* back = broken == mutant::reclaim_without_token ? std::get_if<ledger::reclaim>(&t) : nullptr;
  if (back && answer && changes.locks.contains(back->key)) take_token_back(back->key, answer, rows, changes);
  if (before && rows.find_blob(*blob)->gen > before->gen) {
    auto row = *rows.find_blob(*blob);
    row.gen = before->gen;
    rows.put_blob(row);
    if (answer && std::holds_alternative<ledger::blob_state>(*answer))
      answer = ledger::blob_state{row.gen, row.present};
  }
  return answer;
}

} // namespace coppice::sim
