#include "store/etcd_ledger.hpp"

#include "messages/wire.hpp"
#include "runtime/random.hpp"
#include "store/etcd/noted_rows.hpp"
#include "store/etcd/writer.hpp"
#include "store/ledger_rules.hpp"

#include <algorithm>
#include <unordered_map>

namespace coppice::store {

namespace {

using etcd::fault;
using etcd::footprint;
using verdict = etcd::writer::verdict;

/// Scans that are begun again because etcd was compacted under them.
constexpr int scans_max = 10;
/// How often one transaction is decided anew because another writer was faster.
constexpr int conflicts_max = 32;

/// Only tells what is there; may be old if others write.
bool is_read(const ledger::any_transaction& t) {
  return std::visit(
      [](auto& x) {
        using T = std::decay_t<decltype(x)>;
        return std::is_same_v<T, ledger::stat_blob> || std::is_same_v<T, ledger::read_locks> ||
               std::is_same_v<T, ledger::held_locks> || std::is_same_v<T, ledger::outbox> ||
               std::is_same_v<T, ledger::read_requests> || std::is_same_v<T, ledger::read_attempts> ||
               std::is_same_v<T, ledger::read_paths> || std::is_same_v<T, ledger::read_durations> ||
               std::is_same_v<T, ledger::read_failures>;
      },
      t);
}

class etcd_ledger final : public ledger_backend {
public:
  etcd_ledger(etcd_ledger_options o, ledger_policy policy) : options_(std::move(o)), policy_(policy), rows_(memory_) {
    auto opened = etcd::open_client(options_.client);
    if (!opened) throw ledger_io_error(opened.error().code, opened.error().what);
    client_ = std::move(*opened);
    writer_ = std::make_unique<etcd::writer>(
        etcd::writer_options{options_.prefix, options_.node, options_.shared, options_.lease}, options_.client,
        *client_);
    recognise();
    scan();
  }

  std::vector<expected<ledger::any_answer>> run(std::span<const ledger::any_transaction> batch,
                                                std::int64_t wall_now_ms, ledger::changed& changed) override {
    if (broken_) throw ledger_io_error(ec::io, "the ledger in etcd failed before");
    broken_ = true;
    wall_now_ms_ = wall_now_ms;
    std::vector<expected<ledger::any_answer>> answers;
    answers.reserve(batch.size());
    std::size_t singly_until = 0; // those before it are written one by one
    int conflicts = 0;
    while (answers.size() < batch.size()) {
      auto rest = batch.subspan(answers.size());
      auto g = gather(answers.size() < singly_until ? rest.first(1) : rest);
      auto written = commit(g);
      if (written.verdict == verdict::applied) {
        changes_.absorb(std::move(g.changes));
        std::move(g.answers.begin(), g.answers.end(), std::back_inserter(answers));
        conflicts = 0;
        continue;
      }
      g.print.take_back();
      if (written.verdict == verdict::conflict || std::exchange(behind_, false)) update();
      singly_until = std::max(singly_until, answers.size() + g.answers.size());
      if (written.verdict == verdict::conflict && ++conflicts <= conflicts_max) continue;
      if (g.answers.size() > 1) continue;
      conflicts = 0;
      answers.push_back(tl::unexpected(refusal(written)));
    }
    changes_.append_to(changed);
    broken_ = false;
    return answers;
  }

  std::vector<session_id> sessions() override { return memory_.live_sessions(); }
  std::string lineage() const override { return lineage_; }

private:
  /// Transactions that are written at once.
  struct group {
    footprint print;
    std::vector<expected<ledger::any_answer>> answers;
    ledger_changes changes;
  };

  static error refusal(const etcd::writer::written& w) {
    switch (w.verdict) {
    case verdict::no_space: return {ec::storage_full, "the ledger takes no new rows: " + w.what};
    case verdict::too_large: return {ec::limit_exceeded, "more than the ledger takes at once: " + w.what};
    default:
      return {ec::overloaded,
              "other nodes changed the same rows " + std::to_string(conflicts_max) + " times meanwhile"};
    }
  }

  /// As many of them, from the first on, as one transaction of etcd holds; one in any case.
  group gather(std::span<const ledger::any_transaction> batch) {
    group g;
    for (auto& t : batch) {
      ledger_changes changes;
      auto answer = ledger_rules{rows_, policy_, wall_now_ms_, changes}.apply(t);
      auto print = rows_.take();
      if (is_read(t)) print.guarded.clear();
      if (!g.answers.empty() && !fits(g.print.with(print))) {
        print.take_back();
        break;
      }
      g.print.absorb(std::move(print));
      g.changes.absorb(std::move(changes));
      g.answers.push_back(std::move(answer));
    }
    return g;
  }

  // The writer adds a guard and a put of its own. Its guard alone does for rows that nobody else may write.
  bool fits(const footprint::extent& e) const {
    return (!options_.shared || e.guards < options_.operations_max) && e.puts < options_.operations_max &&
           e.bytes <= options_.transaction_bytes_max;
  }

  etcd::writer::written commit(const group& g) {
    auto& p = g.print;
    if (p.empty()) return {verdict::applied, 0, {}};
    if (!fits(p.with({}))) return commit_in_steps(p);
    etcd::guarded_puts t;
    if (options_.shared)
      for (auto& cell : p.guarded)
        t.guards.push_back(guard(cell));
    for (auto& [cell, value] : p.written)
      t.puts.push_back({options_.prefix + cell, value});
    return write(std::move(t));
  }

  etcd::guarded_puts::guard guard(const std::string& cell) const {
    auto known = revisions_.find(cell);
    return {options_.prefix + cell, known == revisions_.end() ? 0 : known->second};
  }

  etcd::writer::written write(etcd::guarded_puts t) {
    std::vector<std::string> cells;
    for (auto& put : t.puts)
      cells.push_back(put.key.substr(options_.prefix.size()));
    auto done = writer_->commit(std::move(t));
    if (done.verdict != verdict::applied) return done;
    see(done.revision);
    if (!cells.empty()) note_last_change(done.revision);
    for (auto& cell : cells)
      if (etcd::is_guarded(cell)) know(std::move(cell), done.revision);
    if (!cells.empty() && done.revision == complete_ + 1) complete_ = done.revision; // nobody else wrote since
    return done;
  }

  /// One transaction with more rows than etcd takes at once. What was only read is looked at first. Then it is written
  /// in an order in which each prefix is right in itself (cells.hpp), each step guarded by what it writes. If it ends
  /// in the middle, what was written is read again like that of others.
  etcd::writer::written commit_in_steps(const footprint& p) {
    std::unordered_map<std::string, std::int64_t> written;
    for (auto& step : steps(p)) {
      auto puts = step.puts;
      auto done = writer_->commit(std::move(step));
      if (done.verdict != verdict::applied) {
        behind_ = !written.empty();
        return done;
      }
      see(done.revision);
      if (!puts.empty()) note_last_change(done.revision);
      for (auto& put : puts)
        written.insert_or_assign(put.key.substr(options_.prefix.size()), done.revision);
    }
    for (auto& [cell, revision] : written)
      if (etcd::is_guarded(cell)) know(cell, revision);
    return {verdict::applied, newest_, {}};
  }

  std::vector<etcd::guarded_puts> steps(const footprint& p) const {
    const auto room = options_.operations_max - 1; // the writer has one of its own
    std::vector<etcd::guarded_puts> all(1);
    for (auto& cell : p.guarded) {
      if (!options_.shared || p.written.contains(cell)) continue;
      if (all.back().guards.size() == room) all.emplace_back();
      all.back().guards.push_back(guard(cell));
    }
    std::vector<const std::pair<const std::string, std::string>*> order;
    for (auto& cell : p.written)
      order.push_back(&cell);
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return rank(*a) < rank(*b); });
    std::size_t bytes = 0;
    all.emplace_back();
    for (auto at = order.begin(); at != order.end();) {
      // a lock goes with its attempts
      auto inhash = etcd::inhash_in((*at)->first);
      auto end = std::find_if(at + 1, order.end(),
                              [&](auto* cell) { return inhash.empty() || etcd::inhash_in(cell->first) != inhash; });
      std::size_t more = 0;
      for (auto cell = at; cell != end; ++cell)
        more += (*cell)->first.size() + (*cell)->second.size();
      const auto count = static_cast<std::size_t>(end - at);
      if (!all.back().puts.empty() &&
          (all.back().puts.size() + count > room || bytes + more > options_.transaction_bytes_max)) {
        all.emplace_back();
        bytes = 0;
      }
      bytes += more;
      for (; at != end; ++at) {
        auto& [cell, value] = **at;
        if (options_.shared && p.guarded.contains(cell)) all.back().guards.push_back(guard(cell));
        all.back().puts.push_back({options_.prefix + cell, value});
      }
    }
    std::erase_if(all, [](auto& step) { return step.guards.empty() && step.puts.empty(); });
    return all;
  }
  static std::tuple<int, std::string_view, std::string_view>
  rank(const std::pair<const std::string, std::string>& cell) {
    return {etcd::write_rank(cell.first), etcd::inhash_in(cell.first), cell.first};
  }

  void know(std::string cell, std::int64_t revision) { revisions_.insert_or_assign(std::move(cell), revision); }

  void see(std::int64_t revision) {
    if (revision < newest_)
      throw ledger_io_error(ec::ledger_regressed, "etcd went back from revision " + std::to_string(newest_) + " to " +
                                                      std::to_string(revision) + ": was it restored from a backup?");
    newest_ = revision;
  }

  void note_last_change(std::int64_t revision) {
    last_change_ = std::max(last_change_, revision);
    if (options_.last_change && revision > *options_.last_change) *options_.last_change = revision;
  }

  /// As no row is ever deleted, the last change of all that there are only grows, whatever else etcd holds.
  void refuse_older_rows(std::int64_t known) {
    if (last_change_ >= known) return;
    auto why = "etcd went back from revision " + std::to_string(known) + " to " + std::to_string(last_change_) +
               ": was it restored from a backup?";
    (void)writer_->commit({{}, {{options_.prefix + etcd::regressed_cell, why}}}); // ignored: others may not hear of it
    throw ledger_io_error(ec::ledger_regressed, why);
  }

  void recognise() {
    for (;;) {
      auto found = client_->range({options_.prefix + etcd::meta_cell, {}});
      if (!found) etcd::writer::fail_to_open(found.error(), options_.prefix);
      if (!found->rows.empty()) {
        auto meta = etcd::decode_cell<etcd::meta_row>(etcd::meta_cell, found->rows[0].value);
        if (meta.version != etcd::schema_version)
          throw ledger_io_error(ec::unsupported, "the ledger under " + options_.prefix +
                                                     " in etcd has schema version " + std::to_string(meta.version) +
                                                     "; this build knows version " +
                                                     std::to_string(etcd::schema_version));
        lineage_ = meta.lineage;
        return;
      }
      etcd::meta_row fresh{etcd::schema_version, rt::random_id<session_id>().to_string()};
      auto made = writer_->commit(
          {{{options_.prefix + etcd::meta_cell, 0}}, {{options_.prefix + etcd::meta_cell, wire::encode(fresh)}}});
      if (made.verdict == verdict::no_space) etcd::writer::fail_to_open({fault::no_space, made.what}, options_.prefix);
    }
  }

  /// All rows, as of one revision.
  void scan() {
    const std::int64_t known = options_.last_change ? options_.last_change->load() : 0;
    for (int scans = 1;; ++scans) {
      memory_ = {};
      revisions_.clear();
      auto done = read_all({}, [](auto&, bool) {});
      if (done) return refuse_older_rows(known);
      if (done.error().fault != fault::compacted || scans == scans_max)
        etcd::writer::fail_to_open(done.error(), options_.prefix);
    }
  }

  /// What others wrote since the rows were last complete. Nothing of it is told as an event: whoever wrote it did that.
  void update() {
    for (int scans = 1;; ++scans) {
      auto done = read_all(complete_ + 1, [this](const std::string& cell, bool known) {
        if (!known) note_change(cell);
      });
      if (done) return;
      if (done.error().fault != fault::compacted || scans == scans_max)
        etcd::writer::fail(done.error(), "read the ledger");
    }
  }

  void note_change(const std::string& cell) {
    if (auto key = inhash::parse(etcd::inhash_in(cell)); key && cell == etcd::lock_cell(*key))
      changes_.locks.insert_or_assign(*key, *memory_.find_lock(*key));
    if (auto id = etcd::request_in(cell)) changes_.requests.insert(*id);
  }

  template <class Seen>
  etcd::result<void> read_all(std::int64_t changed_since, Seen seen) {
    etcd::query q{options_.prefix, etcd::prefix_end(options_.prefix), options_.page_rows, 0, changed_since};
    for (;;) {
      auto page = client_->range(q);
      if (!page) return tl::unexpected(page.error());
      if (q.revision == 0) {
        see(page->revision);
        q.revision = page->revision;
      }
      for (auto& row : page->rows) {
        auto cell = row.key.substr(options_.prefix.size());
        if (cell == etcd::regressed_cell) throw ledger_io_error(ec::ledger_regressed, row.value);
        if (etcd::is_lasting(cell)) note_last_change(row.revision);
        auto known = revisions_.find(cell);
        const bool is_known = known != revisions_.end() && known->second == row.revision;
        if (!is_known) etcd::load_cell(memory_, cell, row.value);
        seen(cell, is_known);
        if (etcd::is_guarded(cell)) know(std::move(cell), row.revision);
      }
      if (!page->more || page->rows.empty()) break;
      q.begin = page->rows.back().key + '\0';
    }
    complete_ = q.revision;
    return {};
  }

  const etcd_ledger_options options_;
  const ledger_policy policy_;
  std::unique_ptr<etcd::client> client_;
  std::unique_ptr<etcd::writer> writer_;
  std::string lineage_;
  memory_rows memory_;
  etcd::noted_rows rows_;
  std::unordered_map<std::string, std::int64_t> revisions_; ///< of the last change of each guarded cell
  std::int64_t complete_ = 0;                               ///< the rows are all that was written up to this revision
  std::int64_t newest_ = 0;                                 ///< the highest revision that etcd told
  std::int64_t last_change_ = 0;                            ///< the highest revision of any row
  std::int64_t wall_now_ms_ = 0;
  ledger_changes changes_; ///< of the batch that runs
  bool behind_ = false;    ///< of a transaction of many steps some were written, and are not in the rows
  bool broken_ = false;    ///< from the first failure on
};

} // namespace

std::unique_ptr<ledger_backend> open_etcd_ledger(etcd_ledger_options options, ledger_policy policy) {
  return std::make_unique<etcd_ledger>(std::move(options), policy);
}

} // namespace coppice::store
