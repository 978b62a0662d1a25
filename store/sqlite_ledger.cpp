#include "store/ledger_rules.hpp"
#include "store/sqlite_rows.hpp"

#include <sqlite3.h>

#include <random>

namespace coppice::store {

namespace {

/// "coppice ledger" to file(1) and to us.
constexpr int application_id = 0x63706c67;
/// Pages of memory for the page cache, in KiB; keys are random, so the upper levels of every index should stay.
constexpr int cache_kib = 64 * 1024;
constexpr std::uint64_t page_bytes = 4096;
/// Pages in the WAL before they are copied into the file: random keys touch other pages in each batch, and a page that
/// many batches touched is copied once.
constexpr int wal_pages = 8192;

ec code_of(const SQLite::Exception& e) {
  switch (e.getErrorCode() & 0xff) {
  case SQLITE_FULL: return ec::storage_full;
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB: return ec::corrupt;
  case SQLITE_BUSY:
  case SQLITE_LOCKED: return ec::locked;
  default: return ec::io;
  }
}

std::string random_hex() {
  std::random_device random;
  bytes_id<struct lineage_tag, 16> id;
  for (auto& b : id.bytes)
    b = static_cast<std::uint8_t>(random());
  return id.to_string();
}

class sqlite_ledger final : public ledger_backend {
public:
  sqlite_ledger(const std::filesystem::path& file, ledger_policy policy, std::uint64_t file_bytes_max)
      : file_(file), policy_(policy), db_(file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE), rows_(db_) {
    configure(file_bytes_max);
    recognise();
    if (meta("clean") != "1") check();
    lineage_ = meta("lineage");
    put_meta("clean", "0");
    broken_ = false;
  }

  ~sqlite_ledger() override {
    if (broken_) return;
    try {
      put_meta("clean", "1");
    } catch (const std::exception&) {
      // ignored: an end without the mark costs the next start a check, no more
    }
  }

  std::vector<expected<ledger::any_answer>> run(std::span<const ledger::any_transaction> batch,
                                                std::int64_t wall_now_ms, ledger::changed& changed) override {
    ledger_changes changes;
    ledger_rules rules{rows_, policy_, wall_now_ms, changes};
    std::vector<expected<ledger::any_answer>> answers;
    answers.reserve(batch.size());
    in_transaction("run " + std::to_string(batch.size()) + " transactions on", [&] {
      for (auto& t : batch)
        answers.push_back(rules.apply(t));
    });
    changes.append_to(changed);
    return answers;
  }

  std::vector<session_id> sessions() override {
    std::vector<session_id> live;
    in_transaction("read the sessions of", [&] { live = rows_.live_sessions(); });
    return live;
  }

  std::string lineage() const override { return lineage_; }

private:
  /// BEGIN IMMEDIATE, `work`, COMMIT; whatever is thrown on the way, the handle is not used again.
  template <class Work>
  void in_transaction(const std::string& what, Work work) {
    if (broken_)
      throw ledger_io_error(ec::io, "cannot " + what + " the ledger " + file_.string() + ": it failed before");
    broken_ = true;
    try {
      SQLite::Transaction transaction{db_, SQLite::TransactionBehavior::IMMEDIATE};
      work();
      transaction.commit();
    } catch (const SQLite::Exception& e) {
      throw ledger_io_error(code_of(e), "cannot " + what + " the ledger " + file_.string() + ": " + e.what());
    }
    broken_ = false;
  }

  /// Sets a pragma and reads it back, for SQLite ignores what it cannot do.
  void pragma(const std::string& name, const std::string& value, const std::string& expected) {
    db_.exec("PRAGMA " + name + " = " + value);
    auto is = db_.execAndGet("PRAGMA " + name).getString();
    if (is != expected)
      throw ledger_io_error(ec::unsupported,
                            "the ledger " + file_.string() + " cannot have " + name + " " + value + ": it is " + is);
  }

  void configure(std::uint64_t file_bytes_max) {
    pragma("locking_mode", "EXCLUSIVE", "exclusive"); // one connection in the whole system
    pragma("journal_mode", "WAL", "wal");
    pragma("synchronous", "FULL", "2"); // INV-7
    pragma("foreign_keys", "ON", "1");
    pragma("cell_size_check", "ON", "1");
    pragma("wal_autocheckpoint", std::to_string(wal_pages), std::to_string(wal_pages));
    pragma("cache_size", std::to_string(-cache_kib), std::to_string(-cache_kib));
    db_.exec("PRAGMA journal_size_limit = 67108864");
    if (file_bytes_max > 0) db_.exec("PRAGMA max_page_count = " + std::to_string(file_bytes_max / page_bytes));
  }

  /// Creates the tables in an empty file; refuses a file that is something else, or of another version.
  void recognise() {
    int version = db_.execAndGet("PRAGMA user_version").getInt();
    int application = db_.execAndGet("PRAGMA application_id").getInt();
    bool empty = db_.execAndGet("SELECT count(*) FROM sqlite_schema").getInt() == 0;
    if (empty && version == 0 && application == 0) return create();
    if (application != application_id)
      throw ledger_io_error(ec::invalid, file_.string() + " is a database, but not a ledger");
    if (version != sqlite_schema_version)
      throw ledger_io_error(ec::unsupported, "the ledger " + file_.string() + " has schema version " +
                                                 std::to_string(version) + "; this build knows version " +
                                                 std::to_string(sqlite_schema_version));
  }

  void create() {
    SQLite::Transaction transaction{db_, SQLite::TransactionBehavior::IMMEDIATE};
    create_sqlite_schema(db_);
    put_meta("lineage", random_hex());
    put_meta("clean", "1");
    db_.exec("PRAGMA application_id = " + std::to_string(application_id));
    db_.exec("PRAGMA user_version = " + std::to_string(sqlite_schema_version));
    transaction.commit();
  }

  void check() {
    auto verdict = db_.execAndGet("PRAGMA quick_check(1)").getString();
    if (verdict != "ok") throw ledger_io_error(ec::corrupt, "the ledger " + file_.string() + " is damaged: " + verdict);
  }

  std::string meta(const std::string& name) {
    SQLite::Statement select{db_, "SELECT value FROM meta WHERE name = ?"};
    select.bind(1, name);
    return select.executeStep() ? select.getColumn(0).getString() : "";
  }
  void put_meta(const std::string& name, const std::string& value) {
    SQLite::Statement insert{db_, "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)"};
    insert.bind(1, name);
    insert.bind(2, value);
    insert.exec();
  }

  std::filesystem::path file_;
  ledger_policy policy_;
  SQLite::Database db_;
  sqlite_rows rows_;
  std::string lineage_;
  bool broken_ = true; ///< until opened, and from the first failure on
};

} // namespace

std::unique_ptr<ledger_backend> open_sqlite_ledger(const std::filesystem::path& file, ledger_policy policy,
                                                   std::uint64_t file_bytes_max) {
  try {
    return std::make_unique<sqlite_ledger>(file, policy, file_bytes_max);
  } catch (const SQLite::Exception& e) {
    throw ledger_io_error(code_of(e), "cannot open the ledger " + file.string() + ": " + e.what());
  }
}

} // namespace coppice::store
