#include "actors/place/holdings.hpp"

namespace coppice::actors {

void holdings::on_given(const node_id& node, const std::vector<heavy_input>& inputs) {
  for (auto& input : inputs) {
    auto [at, fresh] = holders_.try_emplace(input.path);
    at->second.insert(node);
    if (fresh) order_.push_back(input.path);
  }
  while (holders_.size() > inputs_max_) {
    holders_.erase(order_.front());
    order_.pop_front();
  }
}

std::uint64_t holdings::missing_bytes(const node_id& node, const std::vector<heavy_input>& inputs) const {
  std::uint64_t bytes = 0;
  for (auto& input : inputs) {
    if (input.node == node) continue;
    auto known = holders_.find(input.path);
    if (known == holders_.end() || !known->second.contains(node)) bytes += input.bytes;
  }
  return bytes;
}

} // namespace coppice::actors
