#include "store/ledger_rules.hpp"

#include <algorithm>

namespace coppice::store {

namespace {

/// The first life of a blob's name; 0 names none.
constexpr generation first_generation{1};

blob_row known_blob(ledger_rows& rows, const blob_id& blob) {
  return rows.find_blob(blob).value_or(blob_row{blob, first_generation, false, 0});
}

bool same_contents(const path_info& a, const path_info& b) {
  return a.nar_hash == b.nar_hash && a.nar_size == b.nar_size && a.references == b.references;
}

/// A query that has a limit, for at most as many rows as the ledger gives at once.
template <class Query>
Query bounded(Query query) {
  query.limit = std::min(query.limit, ledger_rows_max);
  return query;
}

} // namespace

expected<void> ledger_rules::require_blob(const path_info& info) {
  auto blob = known_blob(rows_, info.blob);
  if (blob.present && blob.gen == info.gen) return {};
  return fail(ec::upload_again, "the blob " + info.blob.to_string() + " of " + info.path.to_string() +
                                    " is not present in generation " + std::to_string(info.gen.value) +
                                    "; put it under generation " + std::to_string(blob.gen.value));
}

expected<void> ledger_rules::require_same_path(const path_info& info) {
  auto known = rows_.find_path(info.path);
  if (!known || same_contents(*known, info)) return {};
  return fail(ec::conflict, info.path.to_string() + " is known with NAR hash " + known->nar_hash.to_string() +
                                " and other references or contents than NAR hash " + info.nar_hash.to_string());
}

expected<blob_row> ledger_rules::blob_of(const blob_id& blob, generation gen) {
  auto row = known_blob(rows_, blob);
  if (gen <= row.gen) return row;
  return fail(ec::invalid, "the blob " + blob.to_string() + " has not come to generation " + std::to_string(gen.value) +
                               ", but to " + std::to_string(row.gen.value));
}

void ledger_rules::end_generation(blob_row& row) {
  ++row.gen.value;
  row.present = false;
  rows_.put_blob(row);
}

// T10
ledger_rules::answer ledger_rules::on(const ledger::register_blob& t) {
  auto row = known_blob(rows_, t.blob);
  if (row.gen != t.gen)
    return fail(ec::upload_again, "the blob " + t.blob.to_string() + " is in generation " +
                                      std::to_string(row.gen.value) + ", not " + std::to_string(t.gen.value));
  if (row.present) return ledger::done{};
  rows_.put_blob({t.blob, t.gen, true, t.size});
  return ledger::done{};
}

// T16
ledger_rules::answer ledger_rules::on(const ledger::condemn& t) {
  auto row = blob_of(t.blob, t.gen);
  if (!row) return tl::unexpected(row.error());
  if (t.gen < row->gen) return ledger::blob_state{row->gen, row->present};
  if (row->present && rows_.is_blob_named(t.blob)) // INV-8
    return fail(ec::conflict, "the blob " + t.blob.to_string() + " is named by an output, a source or an open request");
  end_generation(*row); // also of one that was never registered: whoever is about to must put it again
  return ledger::blob_state{row->gen, false};
}

// T17
ledger_rules::answer ledger_rules::on(const ledger::gone& t) {
  auto row = blob_of(t.blob, t.gen);
  if (!row) return tl::unexpected(row.error());
  if (t.gen < row->gen || !row->present) return ledger::done{};
  end_generation(*row);
  rows_.drop_sources(t.blob);
  for (auto keys = rows_.realised_by(t.blob, ledger_chunk_rows); !keys.empty();
       keys = rows_.realised_by(t.blob, ledger_chunk_rows))
    for (auto& key : keys) {
      rows_.put_outbox(key, false);
      retract(lock(key));
    }
  return ledger::done{};
}

ledger_rules::answer ledger_rules::on(const ledger::add_source& t) {
  if (auto same = require_same_path(t.info); !same) return tl::unexpected(same.error());
  if (rows_.is_source(t.info.path)) return ledger::done{};
  if (auto present = require_blob(t.info); !present) return tl::unexpected(present.error());
  rows_.put_source(t.info);
  return ledger::done{};
}

ledger_rules::answer ledger_rules::on(const ledger::stat_blob& t) {
  auto row = known_blob(rows_, t.blob);
  return ledger::blob_state{row.gen, row.present};
}

ledger_rules::answer ledger_rules::on(const ledger::read_locks& t) {
  ledger::lock_states found;
  found.rows.reserve(t.keys.size());
  for (auto& key : t.keys)
    found.rows.push_back(lock(key));
  return found;
}

ledger_rules::answer ledger_rules::on(const ledger::held_locks& t) {
  return ledger::lock_states{rows_.held_locks(bounded(t))};
}

ledger_rules::answer ledger_rules::on(const ledger::outbox& t) {
  ledger::lock_states found;
  for (auto& key : rows_.outbox(bounded(t).limit))
    found.rows.push_back(lock(key));
  return found;
}

ledger_rules::answer ledger_rules::on(const ledger::read_requests& t) {
  ledger::request_rows found;
  if (!t.id.empty()) {
    if (auto row = rows_.read_request(t.id)) found.rows.push_back(*std::move(row));
    return found;
  }
  found.rows = rows_.open_requests(t.open_after, std::min(t.open_limit, ledger_rows_max));
  for (auto& row : rows_.ended_requests(t.ended_before, bounded(t).limit))
    found.rows.push_back(std::move(row));
  return found;
}

ledger_rules::answer ledger_rules::on(const ledger::read_attempts& t) {
  return ledger::attempt_rows{rows_.attempts(bounded(t))};
}

ledger_rules::answer ledger_rules::on(const ledger::read_durations& t) {
  ledger::durations found;
  for (std::size_t i = 0; i < std::min(t.names.size(), ledger::names_per_query_max); ++i) {
    auto past = rows_.durations_ms(t.names[i], ledger::attempts_per_duration_max);
    auto middle = past.begin() + static_cast<std::ptrdiff_t>(past.size() / 2);
    std::nth_element(past.begin(), middle, past.end());
    found.ms.push_back(past.empty() ? 0 : std::max<std::int64_t>(*middle, 1));
  }
  return found;
}

ledger_rules::answer ledger_rules::on(const ledger::read_paths& t) {
  ledger::path_infos found;
  std::map<node_id, std::string> urls; // empty: nobody can fetch from it
  for (auto& path : t.paths) {
    auto info = rows_.find_path(path);
    if (!info) continue;
    found.rows.push_back(*std::move(info));
    if (!t.holders) continue;
    const auto node = rows_.builder_of(path);
    if (node.empty()) continue;
    const auto [url, fresh] = urls.try_emplace(node);
    if (fresh)
      if (const auto session = rows_.find_session_of(node); session && !session->over) url->second = session->url;
    if (!url->second.empty()) found.holders.push_back({path, node, url->second});
  }
  return found;
}

ledger_rules::answer ledger_rules::on(const ledger::read_failures& t) {
  ledger::failure_rows found;
  for (auto& row : rows_.failed_locks(bounded(t)))
    found.rows.push_back({row.key, row.drv, row.failed->failure, count_now(*row.failed), row.failed->last_ms,
                          is_remembered(*row.failed),
                          row.failed->reason.substr(0, ledger::failure_row_reason_bytes_max)});
  return found;
}

} // namespace coppice::store
