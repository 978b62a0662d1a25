#include "actors/build/fetch_queue.hpp"

#include <algorithm>

namespace coppice::actors {

bool fetch_queue::add(const nix::store_path& path, fetch_lane lane) {
  auto [at, fresh] = lanes_.try_emplace(path, place{lane});
  auto& p = at->second;
  if (fresh) {
    waiting_[index(lane)].push_back(path);
    return true;
  }
  if (p.running || p.lane != fetch_lane::ahead || lane == fetch_lane::ahead) return false;
  auto& ahead = waiting_[index(fetch_lane::ahead)];
  ahead.erase(std::find(ahead.begin(), ahead.end(), path));
  p.lane = lane;
  waiting_[index(lane)].push_back(path);
  return false;
}

std::optional<nix::store_path> fetch_queue::next() {
  for (auto lane : {fetch_lane::farm, fetch_lane::upstream, fetch_lane::ahead}) {
    auto& waiting = waiting_[index(lane)];
    if (waiting.empty() || running_[index(lane)] >= limits_.running_max[index(lane)]) continue;
    if (lane == fetch_lane::ahead && running_[index(fetch_lane::farm)] > 0) continue;
    auto path = std::move(waiting.front());
    waiting.pop_front();
    lanes_.at(path).running = true;
    ++running_[index(lane)];
    return path;
  }
  return std::nullopt;
}

void fetch_queue::on_ended(const nix::store_path& path) {
  auto at = lanes_.find(path);
  if (at == lanes_.end()) return;
  const auto p = at->second;
  lanes_.erase(at);
  if (p.running)
    --running_[index(p.lane)];
  else
    std::erase(waiting_[index(p.lane)], path);
}

std::set<nix::store_path> fetch_queue::drop_ahead() {
  auto& waiting = waiting_[index(fetch_lane::ahead)];
  std::set<nix::store_path> dropped{waiting.begin(), waiting.end()};
  for (auto& path : dropped)
    lanes_.erase(path);
  waiting.clear();
  return dropped;
}

} // namespace coppice::actors
