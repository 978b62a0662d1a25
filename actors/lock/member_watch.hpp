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
    if (found != members_.end() && found->second.keys.size() < keys_max) found->second.keys.insert(key);
  }
  void note(const ledger::any_transaction& t) {
    if (members_.empty()) return;
    if (auto* a = std::get_if<ledger::acquire>(&t)) note(a->who.session, a->key);
    if (auto* s = std::get_if<ledger::start>(&t)) note(s->who.session, s->key);
    if (auto* r = std::get_if<ledger::reclaim>(&t)) note(r->who.session, r->key);
  }
  /// What each is to be told of these changes.
  std::vector<std::pair<Watcher, ledger::changed>> share(const ledger::changed& all) {
    std::vector<std::pair<Watcher, ledger::changed>> out;
    for (auto& [session, m] : members_) {
      ledger::changed theirs;
      for (auto& row : all.locks) {
        auto key = m.keys.find(row.key);
        if (key == m.keys.end()) continue;
        theirs.locks.push_back(row);
        if (row.phase == ledger::phase::free || row.phase == ledger::phase::realised) m.keys.erase(key);
      }
      if (!theirs.locks.empty()) out.emplace_back(m.who, std::move(theirs));
    }
    return out;
  }
  void forget_silent(time_point now) {
    std::erase_if(members_, [&](const auto& m) { return now - m.second.heard >= silence_max; });
  }
  std::size_t size() const { return members_.size(); }

private:
  struct member {
    Watcher who;
    time_point heard;
    std::set<inhash> keys;
  };
  std::map<session_id, member> members_;
};

} // namespace coppice::actors
