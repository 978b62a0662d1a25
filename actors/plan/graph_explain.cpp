#include "actors/plan/graph.hpp"

#include <algorithm>

/// What GRAPH says of one of its steps when somebody asks why it is not built yet.
namespace coppice::actors {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

std::optional<std::uint32_t> graph_state::find_node(const nix::store_path& path) const {
  if (!path.is_derivation()) return closure_->producer(path);
  auto& nodes = plan_->nodes();
  auto found = std::find_if(nodes.begin(), nodes.end(), [&](auto& n) { return n.drv == path; });
  if (found == nodes.end()) return closure_->producer(path);
  return static_cast<std::uint32_t>(found - nodes.begin());
}

step_answer graph_state::explain(const explain_query& q) const {
  if (result_) return {}; // the ledger knows what became of it
  if (plan_) {
    auto node = find_node(q.path);
    return node ? step_answer{view_of(*node)} : step_answer{};
  }
  auto& roots = request_.body.roots;
  if (std::none_of(roots.begin(), roots.end(), [&](auto& r) { return r.drv == q.path; })) return {};
  step_view v;
  v.request = request_.id;
  v.client = request_.client;
  v.drv = q.path;
  v.text = "the request is being planned";
  return {v};
}

step_view graph_state::view_of(std::uint32_t node) const {
  auto& n = plan_->node(node);
  auto now = config_.clock->now();
  step_view v;
  v.request = request_.id;
  v.client = request_.client;
  v.drv = n.drv;
  v.key = n.key;
  v.life = plan_->life_of(node);
  v.upstream = plan_->is_upstream(node);
  v.failure = plan_->failure_of(node);
  auto job = closure_->make_job(node);
  v.system = job.system;
  v.features = job.features;
  v.io_bound = job.io_bound;

  if (v.life == step_life::wanted || v.life == step_life::not_attempted) {
    auto lacking = plan_->lacking(node);
    v.inputs_count = lacking.size();
    std::stable_sort(lacking.begin(), lacking.end(), // what is nearest to its end, or has failed, says most
                     [&](auto a, auto b) { return plan_->life_of(a) > plan_->life_of(b); });
    lacking.resize(std::min(lacking.size(), explained_rows_max));
    for (auto i : lacking)
      v.inputs.push_back({plan_->node(i).drv, plan_->life_of(i)});
  }
  // PLAN has said that it is to be acquired; here it may still wait for those before it
  auto& in = lanes_[n.lane].ready;
  if (auto place = in.find({-static_cast<std::int64_t>(plan_->critical_path(node)), node}); place != in.end()) {
    v.life = step_life::ready;
    v.ready_ahead = static_cast<std::uint64_t>(std::distance(in.begin(), place));
    v.text = std::to_string(plan_->queued(n.lane)) + " steps of the request wait for a machine already, and at most " +
             std::to_string(config_.queued_max) + " do at a time";
  }
  if (auto due = retry_at_.find(n.key); v.life == step_life::delayed && due != retry_at_.end())
    v.retry_in_ms = std::max<std::int64_t>(0, duration_cast<milliseconds>(due->second - now).count());
  if (v.life == step_life::building) v.running = feed_.running(n.key, now);
  if (auto why = unplaceable_.find(n.key); why != unplaceable_.end()) v.text = why->second;
  if (v.life == step_life::failed)
    for (auto& f : plan_->failures())
      if (f.key == n.key) v.text = f.reason;
  if (v.life == step_life::done)
    for (auto& o : plan_->outputs(node))
      v.outputs.push_back(o.info.path);
  return v;
}

} // namespace coppice::actors
