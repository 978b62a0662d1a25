#include "actors/plan/graph.hpp"

#include <algorithm>

/// What GRAPH says to ALLOCATOR of a job.
namespace coppice::actors {

void graph_state::place(const plan::place& p) {
  const auto node = p.node;
  auto j = closure_->make_job(node);
  j.key = plan_->node(node).key;
  if (auto found = compare_.find(node); found != compare_.end()) j.compare = found->second;
  j.token = p.token;
  j.again = p.again;
  j.priority = request_.body.priority;
  j.critical_path = plan_->critical_path(node);
  j.request = request_.id;
  j.heavy = heavy_inputs(j);
  self_->call(peers_.allocator, atom::place_v, std::move(j), graph_actor{self_->stable()})
      .then([](ledger::done&) {},
            [](caf::error&) {
              // ignored: repeat() places again what is still queued
            });
}

/// Outputs of other steps; of sources, and of what inputs refer to, nobody here knows the size.
std::vector<heavy_input> graph_state::heavy_inputs(const job& j) const {
  std::vector<heavy_input> heavy;
  for (auto& path : *j.inputs)
    if (auto producer = closure_->producer(path))
      for (auto& o : plan_->outputs(*producer))
        if (o.info.path == path && o.info.nar_size >= heavy_input_bytes_min)
          heavy.push_back({path, o.info.nar_size, plan_->builder(*producer)});
  std::sort(heavy.begin(), heavy.end(), [](auto& a, auto& b) { return a.bytes > b.bytes; });
  heavy.resize(std::min(heavy.size(), heavy_inputs_max));
  return heavy;
}

} // namespace coppice::actors
