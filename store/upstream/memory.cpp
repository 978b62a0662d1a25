#include "store/upstream/memory.hpp"

#include <algorithm>
#include <numeric>

namespace coppice::store {

using kind = upstream_memory::verdict::kind;

upstream_memory::upstream_memory(std::vector<std::string> urls, limits l) : limits_(l) {
  for (auto& url : urls) {
    caches_.emplace_back();
    caches_.back().url = std::move(url);
  }
  order_.resize(caches_.size());
  std::iota(order_.begin(), order_.end(), 0);
}

upstream_memory::verdict upstream_memory::look(const nix::store_path& path, const std::set<std::size_t>& silent,
                                               time_point now) const {
  bool unknown = false;
  for (const auto i : order_) {
    if (!caches_[i].refusal.empty()) continue;
    if (const auto at = words_.find({i, path}); at != words_.end() && now < at->second.until) {
      if (at->second.is == kind::found) return {kind::found, i, at->second.what};
    } else if (!caches_[i].known || is_away(i, now) || silent.contains(i)) {
      unknown = true;
    } else {
      return {kind::ask, i, {}};
    }
  }
  return {unknown ? kind::unknown : kind::absent, 0, {}};
}

std::vector<std::size_t> upstream_memory::strangers(time_point now) const {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < caches_.size(); ++i)
    if (!caches_[i].known && !is_away(i, now)) found.push_back(i);
  return found;
}

void upstream_memory::on_info(std::size_t i, const cache_info& info, std::string_view store_dir) {
  auto& c = caches_[i];
  c.known = true;
  c.priority = info.priority;
  c.refusal = info.store_dir == store_dir ? ""
                                          : c.url + " is a cache for the store directory " + info.store_dir +
                                                ", not for " + std::string{store_dir};
  std::sort(order_.begin(), order_.end(), [&](auto a, auto b) {
    return std::pair{caches_[a].priority, a} < std::pair{caches_[b].priority, b};
  });
}

void upstream_memory::on_found(std::size_t i, upstream_path what, time_point now) {
  key k{i, what.info.path};
  remember(std::move(k), kind::found, std::move(what), now + limits_.found_ttl);
}

void upstream_memory::on_absent(std::size_t i, const nix::store_path& path, time_point now) {
  remember({i, path}, kind::absent, {}, now + limits_.absent_ttl);
}

void upstream_memory::on_unusable(std::size_t i, const nix::store_path& path, time_point now) {
  remember({i, path}, kind::unknown, {}, now + limits_.unusable_ttl);
}

void upstream_memory::on_answer(std::size_t i) {
  auto& c = caches_[i];
  c.silences = 0;
  c.away_for = {};
  c.trouble.clear();
}

void upstream_memory::on_silence(std::size_t i, std::string why, time_point now) {
  auto& c = caches_[i];
  c.trouble = std::move(why);
  if (++c.silences < limits_.silences_max || is_away(i, now)) return;
  c.away_for = c.away_for.count() == 0 ? limits_.away_first : std::min(c.away_for * 2, limits_.away_max);
  c.away_until = now + c.away_for;
}

std::vector<std::string> upstream_memory::troubles() const {
  std::vector<std::string> all;
  for (auto& c : caches_)
    if (!c.trouble.empty()) all.push_back(c.url + " does not answer: " + c.trouble);
  return all;
}

void upstream_memory::remember(key k, verdict::kind is, upstream_path what, time_point until) {
  if (const auto at = words_.find(k); at != words_.end()) {
    ages_.erase(at->second.place);
    words_.erase(at);
  }
  if (words_.size() >= limits_.words_max) {
    words_.erase(ages_.front());
    ages_.pop_front();
  }
  ages_.push_back(k);
  words_.emplace(std::move(k), word{is, std::move(what), until, std::prev(ages_.end())});
}

} // namespace coppice::store
