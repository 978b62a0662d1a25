#pragma once

#include "messages/ledger.hpp"
#include "runtime/clock.hpp"

#include <map>
#include <set>
#include <utility>
#include <vector>

namespace coppice::actors {

/// Which members hear of which changed rows: those that their session acquired, started or reclaimed, until they are
/// free or realised. Hints only: what is not told is found by asking.
template <class Watcher>
class member_watch {
public:
  using time_point = rt::boot_clock::time_point;
  /// Of one member; further ones are not told.
  static constexpr std::size_t keys_max = 100'000;
  /// A member that has not said for so long that it watches is forgotten.
  static constexpr std::chrono::seconds silence_max{30};

  /// True if it is new: `keys` of what it holds should be noted.
  bool watch(const session_id& session, const Watcher& who, time_point now) {
    auto [found, fresh] = members_.try_emplace(session, member{who, now, {}});
    found->second.who = who;
    found->second.heard = now;
    return fresh;
  }
  void note(const session_id& session, const inhash& key) {
    auto found = members_.find(session);
    if (found != members_.end() && found->second.keys.size() < keys_max && found->second.keys.insert(key).second)
      holders_[key].insert(session);
  }
  void note(const ledger::any_transaction& t) {
    if (members_.empty()) return;
    if (auto* a = std::get_if<ledger::acquire>(&t)) note(a->who.session, a->key);
    if (auto* s = std::get_if<ledger::start>(&t)) note(s->who.session, s->key);
    if (auto* r = std::get_if<ledger::reclaim>(&t)) note(r->who.session, r->key);
  }
  /// What each is to be told of these changes. However many members there are, only those that hold them are looked at.
  std::vector<std::pair<Watcher, ledger::changed>> share(const ledger::changed& all) {
    std::map<session_id, ledger::changed> theirs;
    for (auto& row : all.locks) {
      auto held = holders_.find(row.key);
      if (held == holders_.end()) continue;
      for (auto& session : held->second) theirs[session].locks.push_back(row);
      if (row.phase != ledger::phase::free && row.phase != ledger::phase::realised) continue;
      for (auto& session : held->second) members_.at(session).keys.erase(row.key);
      holders_.erase(held);
    }
    std::vector<std::pair<Watcher, ledger::changed>> out;
    for (auto& [session, changes] : theirs) out.emplace_back(members_.at(session).who, std::move(changes));
    return out;
  }
  void forget_silent(time_point now) {
    std::erase_if(members_, [&](const auto& m) {
      if (now - m.second.heard < silence_max) return false;
      for (auto& key : m.second.keys) {
        auto held = holders_.find(key);
        held->second.erase(m.first);
        if (held->second.empty()) holders_.erase(held);
      }
      return true;
    });
  }
  std::size_t size() const { return members_.size(); }

private:
  struct member {
    Watcher who;
    time_point heard;
    std::set<inhash> keys;
  };
  std::map<session_id, member> members_;
  std::map<inhash, std::set<session_id>> holders_; ///< of each key of a member, those members
};

} // namespace coppice::actors
