#include "tests/sim/invariants.hpp"

#include "nix/derivation.hpp"
#include "nix/hash.hpp"
#include "nix/nar.hpp"
#include "nix/narinfo.hpp"
#include "store/compression.hpp"
#include "store/path_records.hpp"

#include <type_traits>

namespace coppice::sim {

namespace {

/// The token that a transaction acts under; none for those that need none.
std::optional<fence> token_of(const ledger::any_transaction& t) {
  return std::visit(
      [](const auto& x) -> std::optional<fence> {
        if constexpr (requires {
                        x.key;
                        x.token;
                      })
          return x.token;
        return {};
      },
      t);
}

/// Whether a realisation may end by it.
bool retires(const ledger::any_transaction& t) {
  return std::holds_alternative<ledger::gone>(t) || std::holds_alternative<ledger::retire>(t);
}

std::string name_of(const ledger::lock_state& row) {
  return std::string{row.drv.name()} + " (" + store::describe(row) + ")";
}

} // namespace

nar_hash nar_hash_of_file(const std::string& text) {
  std::string nar;
  nix::nar_writer out{[&](std::string_view bytes) { nar += bytes; }};
  out.regular(false, text.size());
  out.contents(text);
  out.finish();
  return {nix::sha256(nar)};
}

void invariants::broken(const std::string& invariant, const std::string& what) {
  violations_.push_back(
      fmt::format("{} at {:.6f}: {}", invariant, static_cast<double>(time_.now().count()) / 1e9, what));
  time_.tell("BROKEN {}: {}", invariant, what);
}

void invariants::applied(const ledger::any_transaction& t, const store::ledger_rules::answer& answer,
                         const store::ledger_changes& changes, store::ledger_rows& rows) {
  ++transactions_;
  time_.note(t.index());
  time_.note(answer ? answer->index() : 1'000u + static_cast<unsigned>(answer.error().code));
  for (auto& [key, after] : changes.locks) {
    ++changes_;
    auto now = rows.find_lock(key).value();
    auto& before = locks_[key];
    if (time_.prints())
      time_.tell("ledger: transaction {}: {} was {}", t.index(), name_of(now), store::describe(before));
    check_lock(t, before, now);
    before = std::move(now);
  }
  if (!answer) {
    if (answer.error().code == ec::ledger_regressed) broken("INV-7", answer.error().what);
    if (!changes.locks.empty() || !changes.requests.empty()) broken("INV-9", "a refused transaction changed rows");
  }
  for (auto& id : changes.requests)
    check_request(id, rows);
  if (auto* p = std::get_if<ledger::published>(&t); p && answer)
    for (auto& o : p->outputs)
      check_narinfo("marked as published", o.info);
  if (auto* s = std::get_if<ledger::submit>(&t); s && answer) check_request(s->id, rows);
}

void invariants::check_lock(const ledger::any_transaction& t, const ledger::lock_state& before,
                            const ledger::lock_state& after) {
  using ledger::phase;
  if (after.token < before.token)
    broken("INV-7", "the token falls from " + std::to_string(before.token.value) + ": " + name_of(after));
  const bool held = store::is_held(after);
  if (held && after.holder != before.holder && after.token <= before.token)
    broken("INV-1", "another holder under the same token: " + name_of(after));
  if (after.phase == phase::building && before.phase != phase::building && before.phase != phase::partial &&
      after.token <= before.token)
    broken("INV-1", "it is built under a token that was handed out before: " + name_of(after));
  if (auto token = token_of(t); token && *token != before.token)
    broken("INV-1", "token " + std::to_string(token->value) + " changes a row whose token is " +
                        std::to_string(before.token.value) + ": " + name_of(after));
  const auto step = std::string{nix::derivation_name(after.drv)};
  if (after.phase == phase::building && after.token != before.token) revoked_.erase({after.node.value, step});
  if (before.phase == phase::building && !held && std::holds_alternative<ledger::cancel>(t))
    revoked_.insert({before.node.value, step});
  const bool realised = after.phase == phase::realised;
  if (before.phase == phase::realised && !retires(t) && (!realised || after.outputs != before.outputs))
    broken("INV-4", "a realisation is altered: " + name_of(after));
  if (realised && before.phase != phase::realised)
    for (auto& o : after.outputs) {
      check_bytes("committed", o.info);
      auto made = made_.find(o.info.path.to_string());
      if (made == made_.end() || !made->second.contains(o.info.nar_hash))
        broken("INV-16", "what is committed is nothing that a builder made: " + name_of(after));
    }
}

void invariants::check_bytes(const char* when, const path_info& info) {
  const auto key = store::nar_key(info.blob, info.gen);
  if (is_spoilt(key)) return;
  auto* bytes = blobs_.find(key);
  if (bytes == nullptr)
    return broken("INV-8", info.path.to_string() + " is " + when + ", and " + key + " is not there");
  if (nix::sha256(*bytes) != info.blob.bytes)
    return broken("INV-16", info.path.to_string() + " is " + when + ", and " + key + " has other bytes");
  auto [known, fresh] = unpacked_.try_emplace(info.blob);
  if (fresh) {
    std::string nar;
    store::decompress_limits limits;
    limits.bytes_max = 1 << 20;
    store::decompressor inflate{[&](std::string_view piece) -> expected<void> {
                                  nar += piece;
                                  return {};
                                },
                                limits};
    if (!inflate.write(*bytes) || !inflate.finish()) return broken("INV-16", key + " is no compressed NAR");
    known->second = {{nix::sha256(nar)}, nar.size()};
  }
  if (known->second != std::pair{info.nar_hash, info.nar_size})
    broken("INV-16", info.path.to_string() + " is " + when + ", and its NAR is another one");
}

void invariants::check_narinfo(const char* when, const path_info& info) {
  auto* text = blobs_.find(store::narinfo_key(info.path));
  if (text == nullptr) return broken("INV-3", info.path.to_string() + " is " + when + ", and has no narinfo");
  auto parsed = nix::parse_narinfo(*text);
  auto shown = parsed ? store::from_narinfo(*parsed) : fail(ec::invalid, parsed.error().what);
  if (!shown || *shown != info)
    broken("INV-4", info.path.to_string() + " is " + when + ", and its narinfo is another one:\n" + *text);
}

void invariants::check_request(const request_id& id, store::ledger_rows& rows) {
  auto row = rows.read_request(id);
  if (!row) return broken("INV-6", "the request " + id.to_string() + " is gone");
  auto [known, fresh] = requests_.try_emplace(id, *row);
  auto& before = known->second;
  if (fresh) {
    const auto blob = rows.find_blob(row->body.closure);
    const auto key = store::closure_key(row->body.closure, blob ? blob->gen : generation{});
    if (!blob || !blob->present || blobs_.find(key) == nullptr)
      broken("INV-6", "the request " + id.to_string() + " is accepted, and its closure is not there");
  }
  if (row->epoch < before.epoch) broken("INV-7", "the epoch of request " + id.to_string() + " falls");
  if (before.result && row->result != before.result) broken("INV-5", "the result of " + id.to_string() + " changes");
  if (row->result && (fresh || !before.result)) check_success(*row, rows);
  before = std::move(*row);
}

void invariants::check_success(const ledger::request_row& row, store::ledger_rows& rows) {
  if (row.result->state != request_state::succeeded) return;
  for (auto& root : row.result->roots) {
    if (root.failure != failure::none || root.outputs.empty())
      broken("INV-3", row.id.to_string() + " succeeds without " + root.drv.to_string());
    for (auto& o : root.outputs) {
      const auto known = rows.find_path(o.info.path);
      if (!known || *known != o.info) {
        broken("INV-3",
               row.id.to_string() + " succeeds with " + o.info.path.to_string() + ", which is not realised so");
        continue;
      }
      check_bytes("told", o.info);
      if (!is_spoilt(store::nar_key(o.info.blob, o.info.gen))) check_narinfo("told", o.info);
    }
  }
}

// A ledger that forgets breaks everything that was ever said (R2): so this is looked at for itself.
void invariants::reopened(store::ledger_rows& rows) {
  for (auto& [key, before] : locks_) {
    const auto row = rows.find_lock(key);
    if (!row || *row != before)
      broken("INV-7", "the ledger forgot: " + name_of(before) + " is " + (row ? store::describe(*row) : "nothing"));
  }
  for (auto& [id, before] : requests_) {
    const auto row = rows.read_request(id);
    if (!row || *row != before) broken("INV-6", "the ledger forgot what became of request " + id.to_string());
  }
}

void invariants::removed(const std::string& key, const std::string& bytes) {
  const auto id = store::blob_of_key(key);
  if (!id || id->bytes != nix::sha256(bytes)) return; // it was no good
  for (auto& [inhash, row] : locks_)
    if (row.phase == ledger::phase::realised)
      for (auto& o : row.outputs)
        if (store::nar_key(o.info.blob, o.info.gen) == key)
          broken("INV-8", key + " is deleted, and named by " + name_of(row));
}

void invariants::told(const request_result& result, const request_id& id) {
  auto [before, fresh] = told_.try_emplace(id, result);
  if (!fresh && before->second != result) broken("INV-5", "two answers to request " + id.to_string());
  auto row = requests_.find(id);
  if (row == requests_.end() || row->second.result != result)
    broken("INV-5", "an answer to request " + id.to_string() + " that the ledger does not have");
}

void invariants::runs(const std::string& machine, const std::string& out) {
  auto& machines = running_[out];
  machines.insert(machine);
  if (side_by_side_) return;
  const auto step = std::string{nix::store_path::parse(out)->name()};
  std::set<std::string> counting;
  for (auto& m : machines)
    if (!revoked_.contains({m, step})) counting.insert(m);
  if (counting.size() > 1)
    broken("INV-1t", "two machines build " + out + ": " + *counting.begin() + " and " + *counting.rbegin());
}

void invariants::rests(const std::string& machine, const std::string& out) {
  running_[out].erase(machine);
}

void invariants::made(const std::string&, const std::string& out, const std::string& text) {
  ++builds_made_;
  made_[out].insert(nar_hash_of_file(text));
}

void invariants::at_rest(store::ledger_rows& rows) {
  for (auto& [key, seen] : locks_) {
    const auto row = rows.find_lock(key);
    if (!row || *row != seen) {
      broken("INV-9", "a row changed without a transaction: " + name_of(seen));
      continue;
    }
    if (store::is_held(*row)) broken("INV-2", "nobody works any more, and a lock is held: " + name_of(*row));
    if (row->phase != ledger::phase::realised) continue;
    if (!row->published) broken("INV-3", "it is never published: " + name_of(*row));
    for (auto& o : row->outputs) {
      check_bytes("realised", o.info);
      if (row->published && !is_spoilt(store::nar_key(o.info.blob, o.info.gen))) check_narinfo("realised", o.info);
    }
  }
  for (auto& [out, machines] : running_)
    if (!machines.empty()) broken("INV-11", "a builder of " + out + " still runs on " + *machines.begin());
}

} // namespace coppice::sim
