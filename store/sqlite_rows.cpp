#include "store/sqlite_rows.hpp"

#include "messages/wire.hpp"
#include "nix/derivation.hpp"
#include "store/ledger_rules.hpp"
#include "store/sqlite_columns.hpp"

/// Sessions, requests and attempts.
namespace coppice::store {

namespace {

template <class T>
T decode(std::string_view bytes) {
  // written by us, within the wire's limits one by one: together they may be more
  auto value = wire::decode<T>(bytes, {.elements_max = 1 << 24, .string_bytes_max = 64 << 20});
  if (!value) throw ledger_io_error(ec::corrupt, "the ledger's row does not decode: " + value.error().what);
  return *std::move(value);
}

session_row take_session(sqlite_query& q) {
  session_row row;
  row.node = q.take<node_id>();
  row.incarnation = q.take<incarnation>();
  row.session = q.take<session_id>();
  row.over = q.take<bool>();
  row.opened_ms = q.take<std::int64_t>();
  row.url = q.take<std::string>();
  return row;
}

request_head take_head(sqlite_query& q) {
  request_head row;
  row.id = q.take<request_id>();
  row.client = q.take<std::string>();
  row.state = q.take<request_state>();
  row.owner = q.take<session_id>();
  row.epoch = q.take<epoch>();
  row.number = q.take<std::uint64_t>();
  return row;
}

ledger::request_row take_request(sqlite_query& q) {
  auto head = take_head(q);
  ledger::request_row row;
  row.id = head.id;
  row.client = std::move(head.client);
  row.state = head.state;
  row.owner = head.owner;
  row.epoch = head.epoch;
  row.number = head.number;
  row.submitted_ms = q.take<std::int64_t>();
  row.body = decode<request_body>(q.take<std::string>());
  if (auto result = q.take_optional<std::string>()) row.result = decode<request_result>(*result);
  return row;
}

std::vector<ledger::request_row> take_requests(sqlite_query&& q) {
  std::vector<ledger::request_row> rows;
  while (q.next())
    rows.push_back(take_request(q));
  return rows;
}

ledger::attempt_row take_attempt(sqlite_query& q) {
  ledger::attempt_row row;
  row.key = q.take<inhash>();
  row.token = q.take<fence>();
  row.drv = q.take<nix::store_path>();
  row.node = q.take<node_id>();
  row.started_ms = q.take<std::int64_t>();
  row.ended_ms = q.take_optional<std::int64_t>();
  row.result = q.take<failure>();
  row.reason = q.take<std::string>();
  row.usage.wall_ms = q.take<std::int64_t>();
  row.usage.cpu_user_ms = q.take<std::int64_t>();
  row.usage.cpu_system_ms = q.take<std::int64_t>();
  row.usage.memory_peak_bytes = q.take<std::int64_t>();
  row.usage.log_bytes = q.take<std::uint64_t>();
  return row;
}

#define HEAD_COLUMNS "id, client, state, owner, epoch, number"
#define REQUEST_ROWS "SELECT " HEAD_COLUMNS ", submitted_ms, body, result FROM request "
#define ATTEMPT_ROWS                                                                                                   \
  "SELECT inhash, fence, drv, node, started_ms, ended_ms, result, reason, wall_ms, cpu_user_ms, cpu_system_ms,"        \
  " memory_peak_bytes, log_bytes FROM attempt "
#define OLDER "(started_ms, inhash, fence) < (?1, ?2, ?3)"
#define NEWEST_FIRST " ORDER BY started_ms DESC, inhash DESC, fence DESC"

} // namespace

std::optional<session_row> sqlite_rows::find_session_of(const node_id& node) {
  sqlite_query q{q_, "SELECT node, incarnation, session, over, opened_ms, url FROM session WHERE node = ?", node};
  if (!q.next()) return {};
  return take_session(q);
}

std::optional<session_row> sqlite_rows::find_session(const session_id& session) {
  sqlite_query q{q_, "SELECT node, incarnation, session, over, opened_ms, url FROM session WHERE session = ?", session};
  if (!q.next()) return {};
  return take_session(q);
}

void sqlite_rows::put_session(const session_row& row) {
  sqlite_query{q_,
               "INSERT OR REPLACE INTO session (node, incarnation, session, over, opened_ms, url) VALUES (?, ?, ?, ?, ?, ?)",
               row.node,
               row.incarnation,
               row.session,
               row.over,
               row.opened_ms,
               row.url}
      .run();
}

std::vector<session_id> sqlite_rows::live_sessions() {
  return take_all<session_id>({q_, "SELECT session FROM session WHERE over = 0 ORDER BY node"});
}

std::optional<request_head> sqlite_rows::find_request(const request_id& id) {
  sqlite_query q{q_, "SELECT " HEAD_COLUMNS " FROM request WHERE id = ?", id};
  if (!q.next()) return {};
  return take_head(q);
}

std::optional<ledger::request_row> sqlite_rows::read_request(const request_id& id) {
  sqlite_query q{q_, REQUEST_ROWS "WHERE id = ?", id};
  if (!q.next()) return {};
  return take_request(q);
}

void sqlite_rows::add_request(const ledger::request_row& row) {
  sqlite_query{q_,
               "INSERT INTO request (" HEAD_COLUMNS ", submitted_ms, closure, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
               row.id,
               row.client,
               row.state,
               or_null(row.owner),
               row.epoch,
               row.number,
               row.submitted_ms,
               or_null(row.body.closure),
               sqlite_blob{wire::encode(row.body)}}
      .run();
}

void sqlite_rows::put_owner(const request_id& id, const session_id& owner, epoch e) {
  sqlite_query{q_, "UPDATE request SET owner = ?, epoch = ? WHERE id = ?", or_null(owner), e, id}.run();
}

void sqlite_rows::put_result(const request_id& id, const request_result& result) {
  sqlite_query{q_, "UPDATE request SET state = ?, result = ? WHERE id = ?", result.state,
               sqlite_blob{wire::encode(result)}, id}
      .run();
}

std::uint64_t sqlite_rows::last_request_number() {
  sqlite_query q{q_, "SELECT coalesce(max(number), 0) FROM request"};
  q.next();
  return q.take<std::uint64_t>();
}

std::vector<ledger::request_row> sqlite_rows::open_requests(std::uint64_t after, std::size_t limit) {
  return take_requests({q_, REQUEST_ROWS "WHERE state = 0 AND number > ? ORDER BY number LIMIT ?", after, limit});
}

std::vector<ledger::request_row> sqlite_rows::ended_requests(std::uint64_t before, std::size_t limit) {
  const auto below = before == 0 ? INT64_MAX : static_cast<std::int64_t>(before);
  return take_requests(
      {q_, REQUEST_ROWS "WHERE state <> 0 AND number < ? ORDER BY number DESC LIMIT ?", below, limit});
}

std::vector<request_head> sqlite_rows::requests_owned_by(const session_id& owner, std::size_t limit) {
  sqlite_query q{q_, "SELECT " HEAD_COLUMNS " FROM request WHERE state = 0 AND owner = ? ORDER BY number LIMIT ?",
                 owner, limit};
  std::vector<request_head> rows;
  while (q.next())
    rows.push_back(take_head(q));
  return rows;
}

void sqlite_rows::add_interest(const inhash& key, const request_id& id) {
  sqlite_query{q_, "INSERT OR IGNORE INTO interest (request, inhash) VALUES (?, ?)", id, key}.run();
}

void sqlite_rows::drop_interest(const request_id& id) {
  sqlite_query{q_, "DELETE FROM interest WHERE request = ?", id}.run();
}

bool sqlite_rows::is_wanted(const inhash& key) {
  return sqlite_query{q_, "SELECT 1 FROM interest WHERE inhash = ? LIMIT 1", key}.next();
}

std::vector<inhash> sqlite_rows::held_only_for(const request_id& id, const inhash& after, std::size_t limit) {
  return take_all<inhash>({q_,
                           "SELECT w.inhash FROM interest w CROSS JOIN inhash i ON i.inhash = w.inhash"
                           " WHERE w.request = ?1 AND w.inhash > ?2 AND i.phase BETWEEN 1 AND 3 AND NOT EXISTS"
                           " (SELECT 1 FROM interest o WHERE o.inhash = w.inhash AND o.request <> ?1)"
                           " ORDER BY w.inhash LIMIT ?3",
                           id, after, limit});
}

void sqlite_rows::add_attempt(const ledger::attempt_row& row) {
  sqlite_query{q_,
               "INSERT INTO attempt (inhash, fence, drv, node, started_ms, ended_ms, result, reason, name)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
               row.key,
               row.token,
               row.drv,
               row.node,
               row.started_ms,
               row.ended_ms,
               row.result,
               row.reason,
               std::string(nix::name_without_version(nix::derivation_name(row.drv)))}
      .run();
}

void sqlite_rows::end_attempt(const inhash& key, fence token, const attempt_end& end) {
  sqlite_query{q_,
               "UPDATE attempt SET ended_ms = ?3, result = ?4, reason = CASE ?5 WHEN '' THEN reason ELSE ?5 END,"
               " wall_ms = ?6, cpu_user_ms = ?7, cpu_system_ms = ?8, memory_peak_bytes = ?9, log_bytes = ?10"
               " WHERE inhash = ?1 AND fence = ?2 AND ended_ms IS NULL",
               key,
               token,
               end.ended_ms,
               end.result,
               end.reason,
               end.usage.wall_ms,
               end.usage.cpu_user_ms,
               end.usage.cpu_system_ms,
               end.usage.memory_peak_bytes,
               end.usage.log_bytes}
      .run();
}

std::vector<ledger::attempt_row> sqlite_rows::attempts(const ledger::read_attempts& query) {
  const auto before = query.before_ms == 0 ? INT64_MAX : query.before_ms;
  auto all = [](sqlite_query&& q) {
    std::vector<ledger::attempt_row> rows;
    while (q.next())
      rows.push_back(take_attempt(q));
    return rows;
  };
  if (!query.key.empty())
    return all({q_,
                ATTEMPT_ROWS "WHERE inhash = ?4 AND " OLDER " AND (?5 IS NULL OR drv = ?5) ORDER BY fence DESC LIMIT ?6",
                before, query.before_key, query.before_token, query.key, query.drv, query.limit});
  if (query.drv)
    return all({q_, ATTEMPT_ROWS "WHERE drv = ?4 AND " OLDER NEWEST_FIRST " LIMIT ?5", before, query.before_key,
                query.before_token, query.drv, query.limit});
  return all({q_, ATTEMPT_ROWS "WHERE " OLDER NEWEST_FIRST " LIMIT ?4", before, query.before_key, query.before_token,
              query.limit});
}

std::vector<std::int64_t> sqlite_rows::durations_ms(const std::string& name, std::size_t limit) {
  return take_all<std::int64_t>({q_,
                                 "SELECT ended_ms - started_ms FROM attempt"
                                 " WHERE name = ? AND result = 0 AND ended_ms IS NOT NULL"
                                 " ORDER BY ended_ms DESC, started_ms DESC LIMIT ?",
                                 name, limit});
}

} // namespace coppice::store
