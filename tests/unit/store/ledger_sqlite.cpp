#include "ledger_support.hpp"
#include "store/sqlite_rows.hpp"

#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>

#include <fstream>
#include <set>

using namespace coppice;
using namespace coppice::test;

namespace {

const ledger::any_transaction opening = ledger::open_session{node(0), incarnation{1}, session(0)};

ledger::any_transaction registering(unsigned b) {
  return ledger::register_blob{blob(b), {1}, 1};
}

std::vector<expected<ledger::any_answer>> run(ledger_backend& ledger, std::vector<ledger::any_transaction> batch) {
  ledger::changed changed;
  return ledger.run(batch, 1, changed);
}

bool present(ledger_backend& ledger, unsigned b) {
  return std::get<ledger::blob_state>(*run(ledger, {ledger::stat_blob{blob(b)}}).at(0)).present;
}

ec code_of_opening(const fs::path& file) {
  try {
    store::open_sqlite_ledger(file);
  } catch (const ledger_io_error& e) {
    REQUIRE_THAT(e.what(), Catch::Contains(file.string()));
    return e.code();
  }
  return ec::none;
}

/// The files as a crash would leave them.
void copy_as_crashed(const fs::path& from, const fs::path& to) {
  for (auto suffix : {"", "-wal"})
    fs::copy_file(from.string() + suffix, to.string() + suffix);
}

} // namespace

TEST_CASE("a crash after the answer loses nothing", "[ledger][sqlite]") {
  temporary_directory dir;
  auto ledger = store::open_sqlite_ledger(dir / "a.db");
  run(*ledger, {opening, registering(1)});
  run(*ledger, {registering(2)});
  copy_as_crashed(dir / "a.db", dir / "b.db");
  auto survivor = store::open_sqlite_ledger(dir / "b.db");
  REQUIRE(present(*survivor, 1));
  REQUIRE(present(*survivor, 2));
  REQUIRE(survivor->sessions() == std::vector{session(0)});
}

TEST_CASE("a ledger keeps its lineage, and another has another", "[ledger][sqlite]") {
  temporary_directory dir;
  auto lineage = store::open_sqlite_ledger(dir / "a.db")->lineage();
  REQUIRE(lineage.size() == 32);
  REQUIRE(store::open_sqlite_ledger(dir / "a.db")->lineage() == lineage);
  REQUIRE(store::open_sqlite_ledger(dir / "b.db")->lineage() != lineage);
}

TEST_CASE("a second process cannot open the ledger", "[ledger][sqlite]") {
  temporary_directory dir;
  auto ledger = store::open_sqlite_ledger(dir / "a.db");
  REQUIRE(code_of_opening(dir / "a.db") == ec::locked);
  REQUIRE_THROWS_AS(SQLite::Database(dir / "a.db").execAndGet("SELECT count(*) FROM request"), SQLite::Exception);
}

TEST_CASE("a ledger where no file can be is told with its name", "[ledger][sqlite]") {
  temporary_directory dir;
  std::ofstream(dir / "file") << "x";
  REQUIRE(code_of_opening(dir / "file/ledger.db") == ec::io);
  REQUIRE(code_of_opening(dir / "missing/ledger.db") == ec::io);
}

TEST_CASE("a file that is no ledger is not touched", "[ledger][sqlite]") {
  temporary_directory dir;
  std::ofstream(dir / "text") << std::string(10'000, 'x');
  REQUIRE(code_of_opening(dir / "text") == ec::corrupt);
  SQLite::Database(dir / "other.db", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE).exec("CREATE TABLE t (x)");
  REQUIRE(code_of_opening(dir / "other.db") == ec::invalid);
}

TEST_CASE("a ledger of a newer version is refused", "[ledger][sqlite]") {
  temporary_directory dir;
  store::open_sqlite_ledger(dir / "a.db");
  SQLite::Database(dir / "a.db", SQLite::OPEN_READWRITE)
      .exec("PRAGMA user_version = " + std::to_string(store::sqlite_schema_version + 1));
  REQUIRE(code_of_opening(dir / "a.db") == ec::unsupported);
}

TEST_CASE("damage is found after an unclean end", "[ledger][sqlite]") {
  temporary_directory dir;
  {
    auto ledger = store::open_sqlite_ledger(dir / "a.db");
    std::vector<ledger::any_transaction> batch;
    for (unsigned b = 0; b < 2000; ++b)
      batch.push_back(registering(b));
    run(*ledger, batch);
  }
  SQLite::Database(dir / "a.db", SQLite::OPEN_READWRITE).exec("UPDATE meta SET value = '0' WHERE name = 'clean'");
  REQUIRE(code_of_opening(dir / "a.db") == ec::none);
  SQLite::Database db(dir / "a.db", SQLite::OPEN_READWRITE);
  db.exec("PRAGMA journal_mode = DELETE; UPDATE meta SET value = '0' WHERE name = 'clean'");
  auto root = db.execAndGet("SELECT rootpage FROM sqlite_schema WHERE name = 'blob'").getInt();
  std::fstream file(dir / "a.db", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp((root - 1) * 4096 + 8);
  file << std::string(64, '\xff');
  file.close();
  REQUIRE(code_of_opening(dir / "a.db") == ec::corrupt);
}

TEST_CASE("full disk: the ledger fails, answers nothing, and is whole when there is space again", "[ledger][sqlite]") {
  temporary_directory dir;
  store::open_sqlite_ledger(dir / "a.db");
  auto size = fs::file_size(dir / "a.db");
  std::vector<ledger::any_transaction> large;
  for (unsigned b = 100; b < 5000; ++b)
    large.push_back(registering(b));
  {
    auto ledger = store::open_sqlite_ledger(dir / "a.db", {}, size + 3 * 4096);
    run(*ledger, {registering(1)});
    ec code = ec::none;
    try {
      run(*ledger, large);
    } catch (const ledger_io_error& e) {
      code = e.code();
    }
    REQUIRE(code == ec::storage_full);
    REQUIRE_THROWS_AS(run(*ledger, {registering(2)}), ledger_io_error);
    REQUIRE_THROWS_AS(ledger->sessions(), ledger_io_error);
  }
  auto ledger = store::open_sqlite_ledger(dir / "a.db");
  REQUIRE(present(*ledger, 1));
  REQUIRE_FALSE(present(*ledger, 2));
  REQUIRE_FALSE(present(*ledger, 100));
  run(*ledger, large);
  REQUIRE(present(*ledger, 100));
}

TEST_CASE("the file is in WAL mode, and its views read without a key to the numbers", "[ledger][sqlite]") {
  temporary_directory dir;
  {
    auto ledger = store::open_sqlite_ledger(dir / "a.db");
    request_body body;
    body.closure = blob(9);
    run(*ledger,
        {opening, ledger::submit{request(1), "alice", body}, ledger::adopt{request(1), session(0)},
         ledger::acquire{key(1), drv(1), request(1), {1}, who(0, 1)}, ledger::start{key(1), {1}, who(0, 2), node(0)},
         ledger::fail_attempt{key(1), {2}, failure::hash_mismatch, "wrong", ""}});
  }
  SQLite::Database db(dir / "a.db", SQLite::OPEN_READWRITE);
  auto text = [&](const char* sql) { return db.execAndGet(sql).getString(); };
  REQUIRE(text("PRAGMA journal_mode") == "wal");
  REQUIRE(text("SELECT phase || ' ' || failed || ' ' || fence FROM locks") == "free hash_mismatch 2");
  REQUIRE(text("SELECT inhash FROM locks") == key(1).to_string());
  REQUIRE(text("SELECT client || ' ' || state || ' ' || owner || ' ' || inhashes FROM requests") == "alice open a 1");
  REQUIRE(text("SELECT result || ' ' || node || ' ' || reason FROM attempts") == "hash_mismatch a wrong");
  REQUIRE(text("SELECT count(*) FROM outputs") == "0");
}

namespace {

/// Statements that walked over rows in no index's order, or sorted, since the test began.
std::set<std::string> walks;

int note_walk(unsigned, void*, void* statement, void*) {
  auto* s = static_cast<sqlite3_stmt*>(statement);
  auto steps = sqlite3_stmt_status(s, SQLITE_STMTSTATUS_FULLSCAN_STEP, 1);
  auto sorts = sqlite3_stmt_status(s, SQLITE_STMTSTATUS_SORT, 1);
  std::string sql = sqlite3_sql(s);
  if (steps + sorts > 0 && !sql.starts_with("CREATE")) walks.insert(sql);
  return 0;
}
int watch_statements(sqlite3* db, char**, const sqlite3_api_routines*) {
  return sqlite3_trace_v2(db, SQLITE_TRACE_PROFILE, note_walk, nullptr);
}

} // namespace

TEST_CASE("no transaction walks a table or sorts", "[ledger][sqlite]") {
  auto watch = reinterpret_cast<void (*)()>(watch_statements);
  walks.clear();
  sqlite3_auto_extension(watch);
  {
    farm f{kind::sqlite};
    for (unsigned k = 0; k < 20; ++k) {
      if (k % 2) f.realise(k);
      f.build(100 + k);
    }
    f.done(ledger::fail_attempt{key(100), f.lock(100).token, failure::oom, "", ""});
    f.done(ledger::release{key(101), f.lock(101).token, failure::infra, ""});
    f.done(ledger::partial{key(102), f.lock(102).token});
    f.put_blob(50);
    f.done(ledger::add_source{info("source", 50)});
    for (unsigned k : {1u, 50u, 77u})
      f.run(ledger::condemn{blob(k), {1}});
    f.ask<ledger::path_infos>(ledger::read_paths{{path("step1"), path("source")}});
    f.ask<ledger::lock_states>(ledger::held_locks{session(1)});
    f.ask<ledger::attempt_rows>(ledger::read_attempts{{}, drv(1), 0, 10});
    f.attempts(100);
    f.ask<ledger::durations>(ledger::read_durations{{"step1", "step"}});
    for (unsigned r = 1; r < 20; ++r)
      f.submit(r);
    f.ask<ledger::request_row>(f.finishing(0, request_state::failed));
    f.ask<ledger::request_row>(ledger::cancel{request(1), ""});
    f.done(ledger::retire{key(1)});
    f.done(ledger::expire{session(1)});
    f.done(ledger::expire{session(0)});
  }
  sqlite3_cancel_auto_extension(watch);
  REQUIRE(walks == std::set<std::string>{});
}
