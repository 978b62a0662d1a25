#include "nix/derivation.hpp"
#include "store/ledger_rules.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace coppice::store {

namespace {

class memory_rows final : public ledger_rows {
public:
  std::optional<session_row> find_session_of(const node_id& node) override { return find(sessions_, node); }
  std::optional<session_row> find_session(const session_id& session) override {
    auto node = nodes_.find(session);
    return node == nodes_.end() ? std::nullopt : find(sessions_, node->second);
  }
  void put_session(const session_row& row) override {
    if (auto old = sessions_.find(row.node); old != sessions_.end()) nodes_.erase(old->second.session);
    sessions_.insert_or_assign(row.node, row);
    nodes_.insert_or_assign(row.session, row.node);
  }
  std::vector<session_id> live_sessions() override {
    std::vector<session_id> live;
    for (auto& [node, row] : sessions_)
      if (!row.over) live.push_back(row.session);
    return live;
  }

  std::optional<ledger::lock_state> find_lock(const inhash& key) override { return find(locks_, key); }
  void put_lock(const ledger::lock_state& row) override {
    auto& stored = locks_[row.key];
    held_.erase({stored.holder.session, row.key});
    auto outputs = std::move(stored.outputs);
    auto failed = std::move(stored.failed);
    stored = row;
    stored.outputs = std::move(outputs);
    stored.failed = std::move(failed);
    if (is_held(row)) held_.insert({row.holder.session, row.key});
  }
  void put_outputs(const inhash& key, const std::vector<realised_output>& outputs) override {
    auto& stored = locks_.at(key).outputs;
    for (auto& o : stored) {
      outputs_by_path_.erase({o.info.path, key});
      named_.erase(named_.find({o.info.blob, o.info.path})); // one of possibly several
    }
    stored = outputs;
    for (auto& o : stored) {
      outputs_by_path_.emplace(std::pair{o.info.path, key}, o.info);
      named_.insert({o.info.blob, o.info.path});
    }
  }
  void put_failure(const inhash& key, const std::optional<ledger::failure_record>& failed) override {
    locks_.at(key).failed = failed;
  }
  std::vector<ledger::lock_state> failed_locks(const ledger::read_failures& query) override {
    const auto place = [](const ledger::lock_state& row) { return std::pair{-row.failed->last_ms, row.key}; };
    std::vector<ledger::lock_state> rows;
    for (auto& [key, row] : locks_)
      if (row.failed && (!query.drv || row.drv == *query.drv) &&
          (query.after.empty() || place(row) > std::pair{-query.before_ms, query.after}))
        rows.push_back(row);
    std::sort(rows.begin(), rows.end(), [&](auto& a, auto& b) { return place(a) < place(b); });
    rows.resize(std::min<std::size_t>(rows.size(), query.limit));
    return rows;
  }
  std::vector<inhash> realised_by(const blob_id& blob, std::size_t limit) override {
    std::vector<inhash> keys;
    for (auto& [key, row] : locks_)
      if (keys.size() < limit && std::any_of(row.outputs.begin(), row.outputs.end(), [&](auto& o) { return o.info.blob == blob; }))
        keys.push_back(key);
    return keys;
  }
  std::vector<ledger::lock_state> held_locks(const ledger::held_locks& query) override {
    std::vector<ledger::lock_state> rows;
    const auto& session = query.session;
    auto it = held_.upper_bound(std::max(std::pair{session, inhash{}}, std::pair{query.after_session, query.after}));
    for (; it != held_.end() && rows.size() < query.limit && (session.empty() || it->first == session); ++it)
      rows.push_back(locks_.at(it->second));
    return rows;
  }
  std::vector<node_id> death_nodes(const inhash& key) override {
    auto found = deaths_.find(key);
    if (found == deaths_.end()) return {};
    return {found->second.begin(), found->second.end()};
  }
  void add_death_node(const inhash& key, const node_id& node) override { deaths_[key].insert(node); }
  void clear_death_nodes(const inhash& key) override { deaths_.erase(key); }

  void put_outbox(const inhash& key, bool waiting) override {
    if (auto old = outbox_place_.find(key); old != outbox_place_.end()) {
      outbox_.erase(old->second);
      outbox_place_.erase(old);
    }
    if (!waiting) return;
    auto place = outbox_.empty() ? 1 : outbox_.rbegin()->first + 1;
    outbox_.emplace(place, key);
    outbox_place_.emplace(key, place);
  }
  std::vector<inhash> outbox(std::size_t limit) override {
    std::vector<inhash> keys;
    for (auto it = outbox_.begin(); it != outbox_.end() && keys.size() < limit; ++it)
      keys.push_back(it->second);
    return keys;
  }

  std::optional<request_head> find_request(const request_id& id) override {
    auto found = requests_.find(id);
    if (found == requests_.end()) return {};
    auto& r = found->second;
    return request_head{r.id, r.client, r.state, r.owner, r.epoch, r.number};
  }
  std::optional<ledger::request_row> read_request(const request_id& id) override { return find(requests_, id); }
  void add_request(const ledger::request_row& row) override {
    requests_.emplace(row.id, row);
    open_.emplace(row.number, row.id);
    last_number_ = row.number;
  }
  void put_owner(const request_id& id, const session_id& owner, epoch e) override {
    auto& row = requests_.at(id);
    row.owner = owner;
    row.epoch = e;
  }
  void put_result(const request_id& id, const request_result& result) override {
    auto& row = requests_.at(id);
    row.state = result.state;
    row.result = result;
    open_.erase(row.number);
    ended_.emplace(row.number, id);
  }
  std::uint64_t last_request_number() override { return last_number_; }
  std::vector<ledger::request_row> open_requests(std::uint64_t after, std::size_t limit) override {
    std::vector<ledger::request_row> rows;
    for (auto it = open_.upper_bound(after); it != open_.end() && rows.size() < limit; ++it)
      rows.push_back(requests_.at(it->second));
    return rows;
  }
  std::vector<ledger::request_row> ended_requests(std::uint64_t before, std::size_t limit) override {
    std::vector<ledger::request_row> rows;
    for (auto it = std::reverse_iterator{before == 0 ? ended_.end() : ended_.lower_bound(before)}; it != ended_.rend() && rows.size() < limit; ++it)
      rows.push_back(requests_.at(it->second));
    return rows;
  }
  std::vector<request_head> requests_owned_by(const session_id& owner, std::size_t limit) override {
    std::vector<request_head> heads;
    for (auto it = open_.begin(); it != open_.end() && heads.size() < limit; ++it)
      if (requests_.at(it->second).owner == owner) heads.push_back(*find_request(it->second));
    return heads;
  }

  void add_interest(const inhash& key, const request_id& id) override {
    wanted_.insert({key, id});
    wants_.insert({id, key});
  }
  void drop_interest(const request_id& id) override {
    auto it = wants_.lower_bound({id, inhash{}});
    while (it != wants_.end() && it->first == id) {
      wanted_.erase({it->second, id});
      it = wants_.erase(it);
    }
  }
  bool is_wanted(const inhash& key) override {
    auto it = wanted_.lower_bound({key, request_id{}});
    return it != wanted_.end() && it->first == key;
  }
  std::vector<inhash> held_only_for(const request_id& id, const inhash& after, std::size_t limit) override {
    std::vector<inhash> keys;
    for (auto it = wants_.upper_bound({id, after}); it != wants_.end() && it->first == id && keys.size() < limit; ++it)
      if (auto lock = locks_.find(it->second); lock != locks_.end() && is_held(lock->second) && wanted_once(it->second))
        keys.push_back(it->second);
    return keys;
  }

  void add_attempt(const ledger::attempt_row& row) override {
    attempts_.emplace(std::pair{row.key, row.token}, row);
    by_start_.insert({row.started_ms, row.key, row.token});
  }
  void end_attempt(const inhash& key, fence token, const attempt_end& end) override {
    auto found = attempts_.find({key, token});
    if (found == attempts_.end() || found->second.ended_ms) return;
    auto& row = found->second;
    row.ended_ms = end.ended_ms;
    row.result = end.result;
    if (!end.reason.empty()) row.reason = end.reason;
    row.usage = end.usage;
  }
  std::vector<ledger::attempt_row> attempts(const ledger::read_attempts& query) override {
    std::vector<ledger::attempt_row> rows;
    auto consider = [&](const ledger::attempt_row& row) {
      if (query.before_ms != 0 && std::tie(row.started_ms, row.key, row.token) >=
                                      std::tie(query.before_ms, query.before_key, query.before_token))
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
  std::vector<std::int64_t> durations_ms(const std::string& name, std::size_t limit) override {
    std::vector<std::pair<std::int64_t, std::int64_t>> found; // end, start
    for (auto& [id, row] : attempts_)
      if (row.ended_ms && row.result == failure::none && nix::name_without_version(nix::derivation_name(row.drv)) == name)
        found.emplace_back(*row.ended_ms, row.started_ms);
    std::sort(found.rbegin(), found.rend());
    std::vector<std::int64_t> durations;
    for (std::size_t i = 0; i < std::min(limit, found.size()); ++i)
      durations.push_back(found[i].first - found[i].second);
    return durations;
  }

  std::optional<blob_row> find_blob(const blob_id& blob) override { return find(blobs_, blob); }
  void put_blob(const blob_row& row) override { blobs_.insert_or_assign(row.blob, row); }
  bool is_blob_named(const blob_id& blob) override {
    auto it = named_.lower_bound(blob);
    if (it != named_.end() && it->first == blob) return true;
    return std::any_of(open_.begin(), open_.end(),
                       [&](auto& entry) { return requests_.at(entry.second).body.closure == blob; });
  }
  std::optional<path_info> find_path(const nix::store_path& path) override {
    if (auto source = find(sources_, path)) return source;
    auto it = outputs_by_path_.lower_bound({path, inhash{}});
    if (it == outputs_by_path_.end() || it->first.first != path) return {};
    return it->second;
  }
  node_id builder_of(const nix::store_path& path) override {
    auto it = outputs_by_path_.lower_bound({path, inhash{}});
    if (it == outputs_by_path_.end() || it->first.first != path) return {};
    return locks_.at(it->first.second).node;
  }
  void put_source(const path_info& info) override {
    sources_.emplace(info.path, info);
    named_.insert({info.blob, info.path});
  }
  bool is_source(const nix::store_path& path) override { return sources_.contains(path); }
  void drop_sources(const blob_id& blob) override {
    std::erase_if(sources_, [&](auto& source) {
      if (source.second.blob != blob) return false;
      named_.erase(named_.find({blob, source.first})); // one of possibly several
      return true;
    });
  }

private:
  /// A multimap's order, with the blob alone as a key to look for.
  struct by_blob {
    using is_transparent = void;
    using entry = std::pair<blob_id, nix::store_path>;
    bool operator()(const entry& a, const entry& b) const { return a < b; }
    bool operator()(const entry& a, const blob_id& b) const { return a.first < b; }
    bool operator()(const blob_id& a, const entry& b) const { return a < b.first; }
  };

  template <class Map>
  static std::optional<typename Map::mapped_type> find(const Map& map, const typename Map::key_type& key) {
    auto found = map.find(key);
    if (found == map.end()) return {};
    return found->second;
  }
  bool wanted_once(const inhash& key) const {
    auto it = wanted_.lower_bound({key, request_id{}});
    return it != wanted_.end() && it->first == key && (++it == wanted_.end() || it->first != key);
  }

  std::map<node_id, session_row> sessions_;
  std::map<session_id, node_id> nodes_;
  std::map<inhash, ledger::lock_state> locks_;
  std::set<std::pair<session_id, inhash>> held_;
  std::map<inhash, std::set<node_id>> deaths_;
  std::map<std::uint64_t, inhash> outbox_;
  std::map<inhash, std::uint64_t> outbox_place_;
  std::map<request_id, ledger::request_row> requests_;
  std::map<std::uint64_t, request_id> open_;
  std::map<std::uint64_t, request_id> ended_;
  std::uint64_t last_number_ = 0;
  std::set<std::pair<inhash, request_id>> wanted_;
  std::set<std::pair<request_id, inhash>> wants_;
  std::map<std::pair<inhash, fence>, ledger::attempt_row> attempts_;
  std::set<std::tuple<std::int64_t, inhash, fence>> by_start_;
  std::map<blob_id, blob_row> blobs_;
  std::map<nix::store_path, path_info> sources_;
  std::map<std::pair<nix::store_path, inhash>, path_info> outputs_by_path_;
  std::multiset<std::pair<blob_id, nix::store_path>, by_blob> named_;
};

class memory_ledger final : public ledger_backend {
public:
  explicit memory_ledger(ledger_policy policy) : policy_(policy) {}

  std::vector<expected<ledger::any_answer>> run(std::span<const ledger::any_transaction> batch,
                                                std::int64_t wall_now_ms, ledger::changed& changed) override {
    ledger_changes changes;
    ledger_rules rules{*rows_, policy_, wall_now_ms, changes};
    std::vector<expected<ledger::any_answer>> answers;
    answers.reserve(batch.size());
    for (auto& t : batch)
      answers.push_back(rules.apply(t));
    changes.append_to(changed);
    return answers;
  }
  std::vector<session_id> sessions() override { return rows_->live_sessions(); }
  std::string lineage() const override { return "memory"; }

private:
  ledger_policy policy_;
  std::unique_ptr<ledger_rows> rows_ = make_memory_rows();
};

} // namespace

std::unique_ptr<ledger_rows> make_memory_rows() { return std::make_unique<memory_rows>(); }

std::unique_ptr<ledger_backend> open_memory_ledger(ledger_policy policy) {
  return std::make_unique<memory_ledger>(policy);
}

} // namespace coppice::store
