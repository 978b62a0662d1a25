#include "store/sqlite_rows.hpp"

namespace coppice::store {

namespace {

// Ids are BLOBs, store paths are base names, times are wall clock milliseconds. `x BETWEEN 1 AND 3` is phase queued,
// building or partial; state 0 is an open request. Both are spelled in the queries exactly as in the indexes.
constexpr const char* tables = R"sql(
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE word (kind TEXT NOT NULL, number INTEGER NOT NULL, word TEXT NOT NULL, PRIMARY KEY (kind, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
  node TEXT PRIMARY KEY, incarnation INTEGER NOT NULL, session BLOB NOT NULL UNIQUE, over INTEGER NOT NULL,
  opened_ms INTEGER NOT NULL, url TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE inhash (
  inhash BLOB PRIMARY KEY, fence INTEGER NOT NULL, phase INTEGER NOT NULL, session BLOB, nonce BLOB,
  origin INTEGER NOT NULL, node TEXT NOT NULL, drv TEXT NOT NULL, infra_deaths INTEGER NOT NULL,
  published INTEGER NOT NULL, retries INTEGER NOT NULL, missing TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX inhash_held ON inhash (session) WHERE phase BETWEEN 1 AND 3;
CREATE TABLE death (
  inhash BLOB NOT NULL REFERENCES inhash, node TEXT NOT NULL, PRIMARY KEY (inhash, node)
) STRICT, WITHOUT ROWID;
CREATE TABLE failed (
  inhash BLOB PRIMARY KEY REFERENCES inhash, failure INTEGER NOT NULL, fence INTEGER NOT NULL,
  after INTEGER NOT NULL, reason TEXT NOT NULL, log_tail TEXT NOT NULL, count INTEGER NOT NULL,
  last_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX failed_last ON failed (last_ms DESC, inhash);
CREATE TABLE realisation (
  inhash BLOB NOT NULL REFERENCES inhash, output TEXT NOT NULL, path TEXT NOT NULL, nar_hash BLOB NOT NULL,
  nar_size INTEGER NOT NULL, refs TEXT NOT NULL, deriver TEXT, ca TEXT NOT NULL, blob BLOB NOT NULL,
  blob_size INTEGER NOT NULL, gen INTEGER NOT NULL, PRIMARY KEY (inhash, output)
) STRICT, WITHOUT ROWID;
CREATE INDEX realisation_path ON realisation (path);
CREATE INDEX realisation_blob ON realisation (blob);
CREATE TABLE outbox (place INTEGER PRIMARY KEY, inhash BLOB NOT NULL UNIQUE REFERENCES inhash) STRICT;
CREATE TABLE attempt (
  inhash BLOB NOT NULL, fence INTEGER NOT NULL, drv TEXT NOT NULL, node TEXT NOT NULL, started_ms INTEGER NOT NULL,
  ended_ms INTEGER, result INTEGER NOT NULL, reason TEXT NOT NULL, name TEXT NOT NULL,
  wall_ms INTEGER NOT NULL DEFAULT 0, cpu_user_ms INTEGER NOT NULL DEFAULT 0, cpu_system_ms INTEGER NOT NULL DEFAULT 0,
  memory_peak_bytes INTEGER NOT NULL DEFAULT 0, log_bytes INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (inhash, fence)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_started ON attempt (started_ms, inhash, fence);
CREATE INDEX attempt_drv ON attempt (drv, started_ms, inhash, fence);
CREATE INDEX attempt_name ON attempt (name, ended_ms, started_ms) WHERE result = 0 AND ended_ms IS NOT NULL;

CREATE TABLE request (
  number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, client TEXT NOT NULL, state INTEGER NOT NULL, owner BLOB,
  epoch INTEGER NOT NULL, submitted_ms INTEGER NOT NULL, closure BLOB, body BLOB NOT NULL, result BLOB
) STRICT;
CREATE INDEX request_open ON request (number) WHERE state = 0;
CREATE INDEX request_ended ON request (number) WHERE state <> 0;
CREATE INDEX request_owner ON request (owner) WHERE state = 0;
CREATE INDEX request_closure ON request (closure) WHERE state = 0;
CREATE TABLE interest (
  request BLOB NOT NULL REFERENCES request (id), inhash BLOB NOT NULL, PRIMARY KEY (request, inhash)
) STRICT, WITHOUT ROWID;
CREATE INDEX interest_inhash ON interest (inhash);

CREATE TABLE blob (
  blob BLOB PRIMARY KEY, gen INTEGER NOT NULL, present INTEGER NOT NULL, size INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE source (
  path TEXT PRIMARY KEY, nar_hash BLOB NOT NULL, nar_size INTEGER NOT NULL, refs TEXT NOT NULL, deriver TEXT,
  ca TEXT NOT NULL, blob BLOB NOT NULL, blob_size INTEGER NOT NULL, gen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX source_blob ON source (blob);

CREATE VIEW locks AS
  SELECT lower(hex(i.inhash)) AS inhash, i.fence, p.word AS phase, i.drv, s.node AS holder, i.node, i.infra_deaths, i.retries,
         CASE i.phase WHEN 4 THEN i.published END AS published, f.word AS failed, failed.after AS failed_after,
         failed.count AS failures, datetime(failed.last_ms / 1000, 'unixepoch') AS failed_last, failed.reason
    FROM inhash i JOIN word p ON p.kind = 'phase' AND p.number = i.phase
    LEFT JOIN session s ON s.session = i.session
    LEFT JOIN failed ON failed.inhash = i.inhash LEFT JOIN word f ON f.kind = 'failure' AND f.number = failed.failure;
CREATE VIEW requests AS
  SELECT r.number, lower(hex(r.id)) AS id, r.client, w.word AS state, s.node AS owner, r.epoch,
         datetime(r.submitted_ms / 1000, 'unixepoch') AS submitted, lower(hex(r.closure)) AS closure,
         (SELECT count(*) FROM interest WHERE interest.request = r.id) AS inhashes
    FROM request r JOIN word w ON w.kind = 'request' AND w.number = r.state
    LEFT JOIN session s ON s.session = r.owner;
CREATE VIEW attempts AS
  SELECT datetime(a.started_ms / 1000, 'unixepoch') AS started, (a.ended_ms - a.started_ms) / 1000.0 AS seconds,
         CASE WHEN a.ended_ms IS NULL THEN 'running' ELSE w.word END AS result, a.node, a.drv,
         lower(hex(a.inhash)) AS inhash, a.fence, a.reason, a.cpu_user_ms / 1000.0 AS cpu_user,
         a.cpu_system_ms / 1000.0 AS cpu_system, a.memory_peak_bytes, a.log_bytes
    FROM attempt a JOIN word w ON w.kind = 'failure' AND w.number = a.result;
CREATE VIEW outputs AS
  SELECT path, output, lower(hex(inhash)) AS inhash, lower(hex(nar_hash)) AS nar_hash, nar_size,
         lower(hex(blob)) AS blob, gen, blob_size, refs FROM realisation;
)sql";

/// The names of an enum's numbers, for the views.
template <class Enum>
void put_words(SQLite::Database& db, const char* kind) {
  SQLite::Statement insert{db, "INSERT INTO word VALUES (?, ?, ?)"};
  for (int n = 0; n <= static_cast<int>(Enum::last_); ++n) {
    insert.bind(1, kind);
    insert.bind(2, n);
    insert.bind(3, std::string{to_string(static_cast<Enum>(n))});
    insert.exec();
    insert.reset();
  }
}

} // namespace

void create_sqlite_schema(SQLite::Database& db) {
  db.exec(tables);
  put_words<ledger::phase>(db, "phase");
  put_words<failure>(db, "failure");
  put_words<request_state>(db, "request");
}

} // namespace coppice::store
