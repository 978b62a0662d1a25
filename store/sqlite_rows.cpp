#include "store/sqlite_rows.hpp"

#include "messages/wire.hpp"
#include "nix/derivation.hpp"
#include "store/ledger_rules.hpp"

namespace coppice::store {

namespace {

template <class T>
T decode(std::string_view bytes) {
  // written by us, within the wire's limits one by one: together they may be more
  auto value = wire::decode<T>(bytes, {.elements_max = 1 << 24, .string_bytes_max = 64 << 20});
  if (!value) throw ledger_io_error(ec::corrupt, "the ledger's row does not decode: " + value.error().what);
  return *std::move(value);
}

/// An empty id is NULL in the columns that may have none.
template <class Id>
std::optional<Id> or_null(const Id& id) {
  return id.empty() ? std::nullopt : std::optional{id};
}

session_row take_session(sqlite_query& q) {
  session_row row;
  row.node = q.take<node_id>();
  row.incarnation = q.take<incarnation>();
  row.session = q.take<session_id>();
  row.over = q.take<bool>();
  row.opened_ms = q.take<std::int64_t>();
  return row;
}

std::string joined(const std::vector<nix::store_path>& paths) {
  std::string text;
  for (auto& path : paths)
    text += (text.empty() ? "" : " ") + path.base_name();
  return text;
}

std::vector<nix::store_path> split(std::string_view text) {
  std::vector<nix::store_path> paths;
  while (!text.empty()) {
    auto end = std::min(text.find(' '), text.size());
    auto path = nix::store_path::from_base_name(text.substr(0, end));
    if (!path)
      throw ledger_io_error(ec::corrupt,
                            "the ledger's row holds the reference '" + std::string(text.substr(0, end)) + "'");
    paths.push_back(*std::move(path));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return paths;
}

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

path_info take_path(sqlite_query& q) {
  path_info info;
  info.path = q.take<nix::store_path>();
  info.nar_hash = q.take<nar_hash>();
  info.nar_size = q.take<std::uint64_t>();
  info.references = split(q.take<std::string>());
  info.deriver = q.take_optional<nix::store_path>();
  info.ca = q.take<std::string>();
  info.blob = q.take<blob_id>();
  info.blob_size = q.take<std::uint64_t>();
  info.gen = q.take<generation>();
  return info;
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

template <class T>
std::vector<T> take_all(sqlite_query&& q) {
  std::vector<T> found;
  while (q.next())
    found.push_back(q.take<T>());
  return found;
}

#define LOCK_COLUMNS                                                                                                   \
  "SELECT i.inhash, i.fence, i.phase, i.session, i.nonce, i.origin, i.node, i.drv, i.infra_deaths, i.published,"       \
  " i.retries, i.missing, f.failure, f.fence, f.after, f.reason, f.log_tail, f.count, f.last_ms FROM "
#define LOCK_ROWS LOCK_COLUMNS "inhash i LEFT JOIN failed f ON f.inhash = i.inhash "
#define HEAD_COLUMNS "id, client, state, owner, epoch, number"
#define REQUEST_ROWS "SELECT " HEAD_COLUMNS ", submitted_ms, body, result FROM request "
#define PATH_COLUMNS "path, nar_hash, nar_size, refs, deriver, ca, blob, blob_size, gen"
#define ATTEMPT_ROWS                                                                                                   \
  "SELECT inhash, fence, drv, node, started_ms, ended_ms, result, reason, wall_ms, cpu_user_ms, cpu_system_ms,"        \
  " memory_peak_bytes, log_bytes FROM attempt "
#define OLDER "(started_ms, inhash, fence) < (?1, ?2, ?3)"
#define NEWEST_FIRST " ORDER BY started_ms DESC, inhash DESC, fence DESC"

} // namespace

std::optional<session_row> sqlite_rows::find_session_of(const node_id& node) {
  sqlite_query q{q_, "SELECT node, incarnation, session, over, opened_ms FROM session WHERE node = ?", node};
  if (!q.next()) return {};
  return take_session(q);
}

std::optional<session_row> sqlite_rows::find_session(const session_id& session) {
  sqlite_query q{q_, "SELECT node, incarnation, session, over, opened_ms FROM session WHERE session = ?", session};
  if (!q.next()) return {};
  return take_session(q);
}

void sqlite_rows::put_session(const session_row& row) {
  sqlite_query{q_,
               "INSERT OR REPLACE INTO session (node, incarnation, session, over, opened_ms) VALUES (?, ?, ?, ?, ?)",
               row.node,
               row.incarnation,
               row.session,
               row.over,
               row.opened_ms}
      .run();
}

std::vector<session_id> sqlite_rows::live_sessions() {
  return take_all<session_id>({q_, "SELECT session FROM session WHERE over = 0 ORDER BY node"});
}

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
  sqlite_query q{q_, "SELECT output, " PATH_COLUMNS " FROM realisation WHERE inhash = ? ORDER BY output", key};
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
                 "INSERT INTO realisation (inhash, output, " PATH_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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

std::optional<blob_row> sqlite_rows::find_blob(const blob_id& blob) {
  sqlite_query q{q_, "SELECT blob, gen, present, size FROM blob WHERE blob = ?", blob};
  if (!q.next()) return {};
  blob_row row;
  row.blob = q.take<blob_id>();
  row.gen = q.take<generation>();
  row.present = q.take<bool>();
  row.size = q.take<std::uint64_t>();
  return row;
}

void sqlite_rows::put_blob(const blob_row& row) {
  sqlite_query{q_,          "INSERT OR REPLACE INTO blob (blob, gen, present, size) VALUES (?, ?, ?, ?)",
               row.blob,    row.gen,
               row.present, row.size}
      .run();
}

bool sqlite_rows::is_blob_named(const blob_id& blob) {
  sqlite_query q{
      q_,
      "SELECT EXISTS (SELECT 1 FROM realisation WHERE blob = ?1) OR EXISTS (SELECT 1 FROM source WHERE blob ="
      " ?1) OR EXISTS (SELECT 1 FROM request WHERE state = 0 AND closure = ?1)",
      blob};
  q.next();
  return q.take<bool>();
}

std::optional<path_info> sqlite_rows::find_path(const nix::store_path& path) {
  for (auto sql : {"SELECT " PATH_COLUMNS " FROM source WHERE path = ?",
                   "SELECT " PATH_COLUMNS " FROM realisation WHERE path = ? ORDER BY inhash LIMIT 1"}) {
    sqlite_query q{q_, sql, path};
    if (q.next()) return take_path(q);
  }
  return {};
}

void sqlite_rows::put_source(const path_info& info) {
  sqlite_query{q_,
               "INSERT INTO source (" PATH_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
               info.path,
               info.nar_hash,
               info.nar_size,
               joined(info.references),
               info.deriver,
               info.ca,
               info.blob,
               info.blob_size,
               info.gen}
      .run();
}

bool sqlite_rows::is_source(const nix::store_path& path) {
  return sqlite_query{q_, "SELECT 1 FROM source WHERE path = ?", path}.next();
}

void sqlite_rows::drop_sources(const blob_id& blob) {
  sqlite_query{q_, "DELETE FROM source WHERE blob = ?", blob}.run();
}

} // namespace coppice::store
