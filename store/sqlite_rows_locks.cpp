#include "store/sqlite_columns.hpp"
#include "store/sqlite_rows.hpp"

/// Inhashes: their locks, outputs and failures, and the outbox.
namespace coppice::store {

namespace {

ledger::lock_state take_lock(sqlite_query& q) {
  ledger::lock_state row;
  row.key = q.take<inhash>();
  row.token = q.take<fence>();
  row.phase = q.take<ledger::phase>();
  row.holder.session = q.take<session_id>();
  row.holder.nonce = q.take<nonce>();
  row.origin = q.take<fence>();
  row.node = q.take<node_id>();
  row.drv = q.take<nix::store_path>();
  row.infra_deaths = q.take<std::uint32_t>();
  row.published = q.take<bool>();
  row.retries = q.take<std::uint32_t>();
  row.missing = split(q.take_optional<std::string>().value_or(""));
  if (auto kind = q.take_optional<failure>()) {
    auto& failed = row.failed.emplace();
    failed.failure = *kind;
    failed.token = q.take<fence>();
    failed.after = q.take<std::uint64_t>();
    failed.reason = q.take<std::string>();
    failed.log_tail = q.take<std::string>();
    failed.count = q.take<std::uint32_t>();
    failed.last_ms = q.take<std::int64_t>();
  }
  return row;
}

std::vector<ledger::lock_state> take_locks(sqlite_query&& q) {
  std::vector<ledger::lock_state> rows;
  while (q.next())
    rows.push_back(take_lock(q));
  return rows;
}

#define LOCK_COLUMNS                                                                                                   \
  "SELECT i.inhash, i.fence, i.phase, i.session, i.nonce, i.origin, i.node, i.drv, i.infra_deaths, i.published,"       \
  " i.retries, i.missing, f.failure, f.fence, f.after, f.reason, f.log_tail, f.count, f.last_ms FROM "
#define LOCK_ROWS LOCK_COLUMNS "inhash i LEFT JOIN failed f ON f.inhash = i.inhash "

} // namespace

std::optional<ledger::lock_state> sqlite_rows::find_lock(const inhash& key) {
  sqlite_query q{q_, LOCK_ROWS "WHERE i.inhash = ?", key};
  if (!q.next()) return {};
  auto row = take_lock(q);
  if (row.phase == ledger::phase::realised) row.outputs = outputs_of(key);
  return row;
}

void sqlite_rows::put_lock(const ledger::lock_state& row) {
  sqlite_query{q_,
               "INSERT INTO inhash (inhash, fence, phase, session, nonce, origin, node, drv, infra_deaths, published,"
               " retries, missing) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (inhash) DO"
               " UPDATE SET fence = ?2, phase = ?3, session = ?4, nonce = ?5, origin = ?6, node = ?7, drv = ?8,"
               " infra_deaths = ?9, published = ?10, retries = ?11, missing = ?12",
               row.key,
               row.token,
               row.phase,
               or_null(row.holder.session),
               or_null(row.holder.nonce),
               row.origin,
               row.node,
               row.drv,
               row.infra_deaths,
               row.published,
               row.retries,
               joined(row.missing)}
      .run();
}

std::vector<realised_output> sqlite_rows::outputs_of(const inhash& key) {
  std::vector<realised_output> outputs;
  sqlite_query q{q_, "SELECT output, " COPPICE_PATH_COLUMNS " FROM realisation WHERE inhash = ? ORDER BY output", key};
  while (q.next()) {
    auto name = q.take<std::string>();
    outputs.push_back({std::move(name), take_path(q)});
  }
  return outputs;
}

void sqlite_rows::put_outputs(const inhash& key, const std::vector<realised_output>& outputs) {
  sqlite_query{q_, "DELETE FROM realisation WHERE inhash = ?", key}.run();
  for (auto& [name, o] : outputs)
    sqlite_query{q_,
                 "INSERT INTO realisation (inhash, output, " COPPICE_PATH_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                 key,
                 name,
                 o.path,
                 o.nar_hash,
                 o.nar_size,
                 joined(o.references),
                 o.deriver,
                 o.ca,
                 o.blob,
                 o.blob_size,
                 o.gen}
        .run();
}

void sqlite_rows::put_failure(const inhash& key, const std::optional<ledger::failure_record>& failed) {
  if (failed)
    sqlite_query{q_,
                 "INSERT OR REPLACE INTO failed (inhash, failure, fence, after, reason, log_tail, count, last_ms)"
                 " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                 key,
                 failed->failure,
                 failed->token,
                 failed->after,
                 failed->reason,
                 failed->log_tail,
                 failed->count,
                 failed->last_ms}
        .run();
  else
    sqlite_query{q_, "DELETE FROM failed WHERE inhash = ?", key}.run();
}

std::vector<ledger::lock_state> sqlite_rows::failed_locks(const ledger::read_failures& query) {
  const auto newest = query.after.empty() ? INT64_MAX : query.before_ms;
  return take_locks({q_,
                     LOCK_COLUMNS "failed f CROSS JOIN inhash i ON i.inhash = f.inhash WHERE (?1 IS NULL OR i.drv = ?1)"
                                  " AND f.last_ms <= ?2 AND (f.last_ms < ?2 OR f.inhash > ?3)"
                                  " ORDER BY f.last_ms DESC, f.inhash LIMIT ?4",
                     query.drv, newest, query.after, query.limit});
}

std::vector<inhash> sqlite_rows::realised_by(const blob_id& blob, std::size_t limit) {
  return take_all<inhash>({q_, "SELECT DISTINCT inhash FROM realisation WHERE blob = ? ORDER BY inhash LIMIT ?", blob,
                           limit});
}

std::vector<ledger::lock_state> sqlite_rows::held_locks(const ledger::held_locks& query) {
  const char* sql = query.session.empty()
                        ? LOCK_ROWS "WHERE i.phase BETWEEN 1 AND 3 AND ?1 IS NULL AND (i.session, i.inhash) > (?2, ?3)"
                                    " ORDER BY i.session, i.inhash LIMIT ?4"
                        : LOCK_ROWS "WHERE i.phase BETWEEN 1 AND 3 AND i.session = ?1 AND (i.session, i.inhash) > (?2, ?3)"
                                    " ORDER BY i.inhash LIMIT ?4";
  return take_locks({q_, sql, or_null(query.session), query.after_session, query.after, query.limit});
}

std::vector<node_id> sqlite_rows::death_nodes(const inhash& key) {
  return take_all<node_id>({q_, "SELECT node FROM death WHERE inhash = ? ORDER BY node", key});
}

void sqlite_rows::add_death_node(const inhash& key, const node_id& node) {
  sqlite_query{q_, "INSERT OR IGNORE INTO death (inhash, node) VALUES (?, ?)", key, node}.run();
}

void sqlite_rows::clear_death_nodes(const inhash& key) {
  sqlite_query{q_, "DELETE FROM death WHERE inhash = ?", key}.run();
}

void sqlite_rows::put_outbox(const inhash& key, bool waiting) {
  sqlite_query{q_, "DELETE FROM outbox WHERE inhash = ?", key}.run();
  if (waiting)
    sqlite_query{q_, "INSERT INTO outbox (place, inhash) SELECT coalesce(max(place), 0) + 1, ? FROM outbox", key}.run();
}

std::vector<inhash> sqlite_rows::outbox(std::size_t limit) {
  return take_all<inhash>({q_, "SELECT inhash FROM outbox ORDER BY place LIMIT ?", limit});
}

} // namespace coppice::store
