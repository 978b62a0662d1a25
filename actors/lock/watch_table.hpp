#pragma once

#include "messages/ids.hpp"

#include <map>
#include <set>
#include <vector>

namespace coppice::actors {

/// Who watches which inhash. Watchers are compared by identity; each watches an inhash at most once.
template <class Watcher>
class watch_table {
public:
  /// Watchers of one inhash; further ones are told nothing and learn by asking.
  static constexpr std::size_t watchers_per_key_max = 10'000;

  bool add(const inhash& key, const Watcher& w) {
    auto& all = by_key_[key];
    if (all.size() >= watchers_per_key_max && !all.contains(w)) return false;
    all.insert(w);
    by_watcher_[w].insert(key);
    return true;
  }
  void remove(const inhash& key, const Watcher& w) {
    if (auto found = by_key_.find(key); found != by_key_.end()) {
      found->second.erase(w);
      if (found->second.empty()) by_key_.erase(found);
    }
    if (auto found = by_watcher_.find(w); found != by_watcher_.end()) {
      found->second.erase(key);
      if (found->second.empty()) by_watcher_.erase(found);
    }
  }
  /// The watcher is gone.
  void remove(const Watcher& w) {
    auto found = by_watcher_.find(w);
    if (found == by_watcher_.end()) return;
    for (auto& key : std::set<inhash>(std::move(found->second))) remove(key, w);
    by_watcher_.erase(w);
  }
  std::vector<Watcher> of(const inhash& key) const {
    auto found = by_key_.find(key);
    return found == by_key_.end() ? std::vector<Watcher>{} : std::vector<Watcher>(found->second.begin(), found->second.end());
  }
  /// True if it watches anything.
  bool knows(const Watcher& w) const { return by_watcher_.contains(w); }
  std::size_t keys() const { return by_key_.size(); }

private:
  std::map<inhash, std::set<Watcher>> by_key_;
  std::map<Watcher, std::set<inhash>> by_watcher_;
};

} // namespace coppice::actors
