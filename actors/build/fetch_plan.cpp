#include "actors/build/fetch_plan.hpp"

#include <algorithm>

namespace coppice::actors {

void fetch_plan::on_holders(const std::vector<ledger::path_holder>& holders) {
  if (options_.store_is_here) return;
  for (auto& h : holders) {
    if (h.node == options_.me) continue; // it would have been here
    auto& known = holders_[h.path];
    if (std::find(known.begin(), known.end(), h) == known.end()) known.push_back(h);
  }
}

std::vector<ledger::path_holder> fetch_plan::holders_of(const nix::store_path& path,
                                                        holder_health::time_point now) const {
  std::vector<ledger::path_holder> worth_asking;
  if (auto known = holders_.find(path); known != holders_.end())
    for (auto& h : known->second)
      if (health_.may_ask(h.node, now)) worth_asking.push_back(h);
  return worth_asking;
}

} // namespace coppice::actors
