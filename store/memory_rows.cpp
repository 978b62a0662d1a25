#include "store/memory_rows.hpp"

#include "nix/derivation.hpp"
#include "store/ledger_rules.hpp"

#include <algorithm>

namespace coppice::store {

namespace {

template <class Map>
std::optional<typename Map::mapped_type> find(const Map& map, const typename Map::key_type& key) {
  auto found = map.find(key);
  if (found == map.end()) return {};
  return found->second;
}

template <class Map>
const typename Map::mapped_type* find_in(const Map& map, const typename Map::key_type& key) {
  auto found = map.find(key);
  return found == map.end() ? nullptr : &found->second;
}

} // namespace

// sessions

std::optional<session_row> memory_rows::find_session_of(const node_id& node) {
  return find(sessions_, node);
}

std::optional<session_row> memory_rows::find_session(const session_id& session) {
  auto node = nodes_.find(session);
  return node == nodes_.end() ? std::nullopt : find(sessions_, node->second);
}

void memory_rows::put_session(const session_row& row) {
  erase_session(row.node);
  sessions_.insert_or_assign(row.node, row);
  nodes_.insert_or_assign(row.session, row.node);
}

void memory_rows::erase_session(const node_id& node) {
  auto old = sessions_.find(node);
  if (old == sessions_.end()) return;
  // when rows of others are read, one that took over the session may have come first
  if (auto index = nodes_.find(old->second.session); index != nodes_.end() && index->second == node)
    nodes_.erase(index);
  sessions_.erase(old);
}

std::vector<session_id> memory_rows::live_sessions() {
  std::vector<session_id> live;
  for (auto& [node, row] : sessions_)
    if (!row.over) live.push_back(row.session);
  return live;
}

// inhashes

void memory_rows::index(const lock_record& r) {
  auto& s = r.state;
  if (is_held(s)) held_.insert({s.holder.session, s.key});
  if (s.failed) failed_.insert({-s.failed->last_ms, s.key});
  if (r.outbox_place != 0) outbox_.insert({r.outbox_place, s.key});
  for (auto& id : r.wanted_by)
    wants_.insert({id, s.key});
  for (auto& o : s.outputs) {
    outputs_by_path_.insert({o.info.path, s.key});
    named_.insert({o.info.blob, o.info.path, s.key});
  }
}

void memory_rows::unindex(const lock_record& r) {
  auto& s = r.state;
  held_.erase({s.holder.session, s.key});
  if (s.failed) failed_.erase({-s.failed->last_ms, s.key});
  outbox_.erase({r.outbox_place, s.key});
  for (auto& id : r.wanted_by)
    wants_.erase({id, s.key});
  for (auto& o : s.outputs) {
    outputs_by_path_.erase({o.info.path, s.key});
    named_.erase({o.info.blob, o.info.path, s.key});
  }
}

template <class Change>
void memory_rows::alter(const inhash& key, Change change) {
  auto& record = locks_.at(key);
  unindex(record);
  change(record);
  index(record);
}

std::optional<ledger::lock_state> memory_rows::find_lock(const inhash& key) {
  auto found = find_record(key);
  if (!found) return {};
  return found->state;
}

void memory_rows::put_lock(const ledger::lock_state& row) {
  auto& stored = locks_[row.key].state;
  held_.erase({stored.holder.session, row.key}); // the one index that may change here
  auto outputs = std::move(stored.outputs);
  auto failed = std::move(stored.failed);
  stored = row;
  stored.outputs = std::move(outputs);
  stored.failed = std::move(failed);
  if (is_held(row)) held_.insert({row.holder.session, row.key});
}

void memory_rows::put_outputs(const inhash& key, const std::vector<realised_output>& outputs) {
  alter(key, [&](auto& record) { record.state.outputs = outputs; });
}

void memory_rows::put_failure(const inhash& key, const std::optional<ledger::failure_record>& failed) {
  alter(key, [&](auto& record) { record.state.failed = failed; });
}

std::vector<ledger::lock_state> memory_rows::failed_locks(const ledger::read_failures& query) {
  std::vector<ledger::lock_state> rows;
  auto it = query.after.empty() ? failed_.begin() : failed_.upper_bound({-query.before_ms, query.after});
  for (; it != failed_.end() && rows.size() < query.limit; ++it)
    if (auto& row = locks_.at(it->second).state; !query.drv || row.drv == *query.drv) rows.push_back(row);
  return rows;
}

std::vector<inhash> memory_rows::realised_by(const blob_id& blob, std::size_t limit) {
  std::set<inhash> keys;
  for (auto it = named_.lower_bound(blob); it != named_.end() && std::get<0>(*it) == blob; ++it)
    if (auto& key = std::get<2>(*it); !key.empty()) keys.insert(key);
  return {keys.begin(), std::next(keys.begin(), static_cast<std::ptrdiff_t>(std::min(limit, keys.size())))};
}

std::vector<ledger::lock_state> memory_rows::held_locks(const ledger::held_locks& query) {
  std::vector<ledger::lock_state> rows;
  const auto& session = query.session;
  auto it = held_.upper_bound(std::max(std::pair{session, inhash{}}, std::pair{query.after_session, query.after}));
  for (; it != held_.end() && rows.size() < query.limit && (session.empty() || it->first == session); ++it)
    rows.push_back(locks_.at(it->second).state);
  return rows;
}

std::vector<node_id> memory_rows::death_nodes(const inhash& key) {
  auto found = find_record(key);
  return found ? found->deaths : std::vector<node_id>{};
}

void memory_rows::add_death_node(const inhash& key, const node_id& node) {
  auto& deaths = locks_.at(key).deaths;
  auto place = std::lower_bound(deaths.begin(), deaths.end(), node);
  if (place == deaths.end() || *place != node) deaths.insert(place, node);
}

void memory_rows::clear_death_nodes(const inhash& key) {
  if (auto found = locks_.find(key); found != locks_.end()) found->second.deaths.clear();
}

void memory_rows::put_outbox(const inhash& key, bool waiting) {
  auto& record = locks_.at(key);
  outbox_.erase({record.outbox_place, key});
  record.outbox_place = !waiting ? 0 : outbox_.empty() ? 1 : outbox_.rbegin()->first + 1;
  if (waiting) outbox_.insert({record.outbox_place, key});
}

std::vector<inhash> memory_rows::outbox(std::size_t limit) {
  std::vector<inhash> keys;
  for (auto it = outbox_.begin(); it != outbox_.end() && keys.size() < limit; ++it)
    keys.push_back(it->second);
  return keys;
}

const lock_record* memory_rows::find_record(const inhash& key) const {
  return find_in(locks_, key);
}

void memory_rows::set_record(const lock_record& record) {
  auto& key = record.state.key;
  erase_record(key);
  auto& stored = locks_.emplace(key, record).first->second;
  std::erase_if(stored.wanted_by, [&](auto& id) {
    auto request = find_in(requests_, id);
    return request && request->state != request_state::open;
  });
  index(stored);
}

void memory_rows::erase_record(const inhash& key) {
  auto found = locks_.find(key);
  if (found == locks_.end()) return;
  unindex(found->second);
  locks_.erase(found);
}

// requests

std::optional<request_head> memory_rows::find_request(const request_id& id) {
  auto r = find_in(requests_, id);
  if (!r) return {};
  return request_head{r->id, r->client, r->state, r->owner, r->epoch, r->number};
}

std::optional<ledger::request_row> memory_rows::read_request(const request_id& id) {
  return find(requests_, id);
}

void memory_rows::add_request(const ledger::request_row& row) {
  set_request(row);
  last_number_ = row.number;
}

void memory_rows::put_owner(const request_id& id, const session_id& owner, epoch e) {
  auto& row = requests_.at(id);
  row.owner = owner;
  row.epoch = e;
}

void memory_rows::put_result(const request_id& id, const request_result& result) {
  auto& row = requests_.at(id);
  row.state = result.state;
  row.result = result;
  open_.erase(row.number);
  ended_.emplace(row.number, id);
}

std::vector<ledger::request_row> memory_rows::open_requests(std::uint64_t after, std::size_t limit) {
  std::vector<ledger::request_row> rows;
  for (auto it = open_.upper_bound(after); it != open_.end() && rows.size() < limit; ++it)
    rows.push_back(requests_.at(it->second));
  return rows;
}

std::vector<ledger::request_row> memory_rows::ended_requests(std::uint64_t before, std::size_t limit) {
  std::vector<ledger::request_row> rows;
  auto end = before == 0 ? ended_.end() : ended_.lower_bound(before);
  for (auto it = std::reverse_iterator{end}; it != ended_.rend() && rows.size() < limit; ++it)
    rows.push_back(requests_.at(it->second));
  return rows;
}

std::vector<request_head> memory_rows::requests_owned_by(const session_id& owner, std::size_t limit) {
  std::vector<request_head> heads;
  for (auto it = open_.begin(); it != open_.end() && heads.size() < limit; ++it)
    if (requests_.at(it->second).owner == owner) heads.push_back(*find_request(it->second));
  return heads;
}

void memory_rows::set_request(const ledger::request_row& row) {
  erase_request(row.id);
  requests_.emplace(row.id, row);
  bool open = row.state == request_state::open;
  (open ? open_ : ended_).emplace(row.number, row.id);
  if (!open) drop_interest(row.id);
}

void memory_rows::erase_request(const request_id& id) {
  auto found = requests_.find(id);
  if (found == requests_.end()) return;
  open_.erase(found->second.number);
  ended_.erase(found->second.number);
  requests_.erase(found);
}

// interest

void memory_rows::add_interest(const inhash& key, const request_id& id) {
  auto& wanted_by = locks_.at(key).wanted_by;
  auto place = std::lower_bound(wanted_by.begin(), wanted_by.end(), id);
  if (place == wanted_by.end() || *place != id) wanted_by.insert(place, id);
  wants_.insert({id, key});
}

void memory_rows::drop_interest(const request_id& id) {
  for (auto& key : wanted(id)) {
    std::erase(locks_.at(key).wanted_by, id);
    wants_.erase({id, key});
  }
}

std::vector<inhash> memory_rows::wanted(const request_id& id) const {
  std::vector<inhash> keys;
  for (auto it = wants_.lower_bound({id, inhash{}}); it != wants_.end() && it->first == id; ++it)
    keys.push_back(it->second);
  return keys;
}

const request_id* memory_rows::wanting(const inhash& key) const {
  auto record = find_record(key);
  return record && !record->wanted_by.empty() ? &record->wanted_by.front() : nullptr;
}

std::vector<inhash> memory_rows::held_only_for(const request_id& id, const inhash& after, std::size_t limit) {
  std::vector<inhash> keys;
  for (auto it = wants_.upper_bound({id, after}); it != wants_.end() && it->first == id && keys.size() < limit; ++it)
    if (auto& record = locks_.at(it->second); is_held(record.state) && record.wanted_by.size() == 1)
      keys.push_back(it->second);
  return keys;
}

// attempts

void memory_rows::index(const ledger::attempt_row& row) {
  by_start_.insert({row.started_ms, row.key, row.token});
  if (row.ended_ms && row.result == failure::none)
    succeeded_[std::string(nix::name_without_version(nix::derivation_name(row.drv)))].insert(
        {*row.ended_ms, row.started_ms, row.key, row.token});
}

void memory_rows::unindex(const ledger::attempt_row& row) {
  by_start_.erase({row.started_ms, row.key, row.token});
  if (!row.ended_ms || row.result != failure::none) return;
  auto named = succeeded_.find(std::string(nix::name_without_version(nix::derivation_name(row.drv))));
  if (named == succeeded_.end()) return;
  named->second.erase({*row.ended_ms, row.started_ms, row.key, row.token});
  if (named->second.empty()) succeeded_.erase(named);
}

void memory_rows::end_attempt(const inhash& key, fence token, const attempt_end& end) {
  auto found = attempts_.find({key, token});
  if (found == attempts_.end() || found->second.ended_ms) return;
  auto row = found->second;
  row.ended_ms = end.ended_ms;
  row.result = end.result;
  if (!end.reason.empty()) row.reason = end.reason;
  row.usage = end.usage;
  set_attempt(row);
}

std::vector<ledger::attempt_row> memory_rows::attempts(const ledger::read_attempts& query) {
  std::vector<ledger::attempt_row> rows;
  auto consider = [&](const ledger::attempt_row& row) {
    if (query.before_ms != 0 &&
        std::tie(row.started_ms, row.key, row.token) >= std::tie(query.before_ms, query.before_key, query.before_token))
      return;
    if (!query.drv || row.drv == *query.drv) rows.push_back(row);
  };
  if (query.key.empty()) {
    for (auto it = by_start_.rbegin(); it != by_start_.rend() && rows.size() < query.limit; ++it)
      consider(attempts_.at({std::get<1>(*it), std::get<2>(*it)}));
  } else {
    auto it = attempts_.upper_bound({query.key, fence{UINT64_MAX}});
    while (it != attempts_.begin() && rows.size() < query.limit && (--it)->first.first == query.key)
      consider(it->second);
  }
  return rows;
}

std::vector<std::int64_t> memory_rows::durations_ms(const std::string& name, std::size_t limit) {
  std::vector<std::int64_t> durations;
  auto found = succeeded_.find(name);
  if (found == succeeded_.end()) return durations;
  for (auto it = found->second.rbegin(); it != found->second.rend() && durations.size() < limit; ++it)
    durations.push_back(std::get<0>(*it) - std::get<1>(*it));
  return durations;
}

const ledger::attempt_row* memory_rows::find_attempt(const inhash& key, fence token) const {
  return find_in(attempts_, {key, token});
}

void memory_rows::set_attempt(const ledger::attempt_row& row) {
  erase_attempt(row.key, row.token);
  attempts_.emplace(std::pair{row.key, row.token}, row);
  index(row);
}

void memory_rows::erase_attempt(const inhash& key, fence token) {
  auto found = attempts_.find({key, token});
  if (found == attempts_.end()) return;
  unindex(found->second);
  attempts_.erase(found);
}

// blobs and paths

std::optional<blob_row> memory_rows::find_blob(const blob_id& blob) {
  return find(blobs_, blob);
}

bool memory_rows::is_blob_named(const blob_id& blob) {
  if (named_.contains(blob)) return true;
  return std::any_of(open_.begin(), open_.end(),
                     [&](auto& entry) { return requests_.at(entry.second).body.closure == blob; });
}

std::optional<path_info> memory_rows::find_path(const nix::store_path& path) {
  if (auto source = find_source(path)) return *source;
  auto it = outputs_by_path_.lower_bound({path, inhash{}});
  if (it == outputs_by_path_.end() || it->first != path) return {};
  for (auto& o : locks_.at(it->second).state.outputs)
    if (o.info.path == path) return o.info;
  return {};
}

node_id memory_rows::builder_of(const nix::store_path& path) {
  auto it = outputs_by_path_.lower_bound({path, inhash{}});
  if (it == outputs_by_path_.end() || it->first != path) return {};
  return locks_.at(it->second).state.node;
}

void memory_rows::put_source(const path_info& info) {
  erase_source(info.path);
  sources_.emplace(info.path, info);
  named_.insert({info.blob, info.path, inhash{}});
}

void memory_rows::drop_sources(const blob_id& blob) {
  for (auto& path : sources_in(blob))
    erase_source(path);
}

std::vector<nix::store_path> memory_rows::sources_in(const blob_id& blob) const {
  std::vector<nix::store_path> paths;
  for (auto it = named_.lower_bound(blob); it != named_.end() && std::get<0>(*it) == blob; ++it)
    if (std::get<2>(*it).empty()) paths.push_back(std::get<1>(*it));
  return paths;
}

const path_info* memory_rows::find_source(const nix::store_path& path) const {
  return find_in(sources_, path);
}

void memory_rows::erase_source(const nix::store_path& path) {
  auto found = sources_.find(path);
  if (found == sources_.end()) return;
  named_.erase({found->second.blob, path, inhash{}});
  sources_.erase(found);
}

} // namespace coppice::store
