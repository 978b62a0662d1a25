#include "actors/ask.hpp"
#include "actors/plan/graph.hpp"
#include "runtime/log.hpp"
#include "store/blob_store.hpp"

#include <algorithm>

/// From a request to its plan: the closure is read, and the sources that it needs are looked up.
namespace coppice::actors {

void graph_state::load() {
  self_->doing("reading the closure of request " + request_.id.to_string().substr(0, 8));
  loading_ = true;
  transact<ledger::blob_state>(
    self_, peers_.ledger, ledger::stat_blob{request_.body.closure},
    [this](ledger::blob_state& blob) {
      if (!blob.present)
        return self_->send(self_->incarnation(), atom::failed_v,
                           make_error(ec::missing, "the closure " + request_.body.closure.to_string() + " is lost"));
      load(store::closure_key(request_.body.closure, blob.gen));
    },
    [this](const error& e) { load_again_later(e); });
}

/// Only what another try would find the same fails the request.
void graph_state::on_not_loaded(const error& e) {
  switch (e.code) {
    case ec::bad_message:
    case ec::invalid:
    case ec::missing:
    case ec::corrupt:
    case ec::limit_exceeded: break;
    default: return load_again_later(e);
  }
  request_result r;
  r.state = request_state::failed;
  r.reason = "cannot plan the request: " + e.what;
  for (auto& root : request_.body.roots) r.roots.push_back({root.drv, {}, failure::unsupported});
  finish(std::move(r));
}

void graph_state::load_again_later(const error& e) {
  loading_ = false; // repeat() sees to it
  load_again_ = config_.clock->now() + load_delay_;
  load_delay_ = std::min(load_delay_ * 2, config_.retry_max);
  rt::log::warn("GRAPH", "closure not read, tried again id={} error={}", request_.id.to_string(), to_string(e));
}

void graph_state::load(const std::string& key) {
  auto me = self_->incarnation();
  auto work = [blobs = config_.blobs, key, roots = request_.body.roots] {
    return closure_graph::load(*blobs, key, roots);
  };
  bool posted = rt::post_and_send(
    *config_.pool, work,
    [me](expected<std::shared_ptr<const closure_graph>> g) {
      if (g)
        caf::anon_send(me, atom::done_v, std::move(*g));
      else
        caf::anon_send(me, atom::failed_v, make_error(g.error()));
    },
    [me](const std::string& what) { caf::anon_send(me, atom::failed_v, make_error(ec::crashed, what)); });
  if (!posted) load_again_later({ec::overloaded, "the pool is full"});
}

void graph_state::begin(std::shared_ptr<const closure_graph> g) {
  if (result_) return; // cancelled meanwhile
  closure_ = std::move(g);
  if (request_.body.rebuild)
    look_at_roots();
  else
    plan_it(closure_->nodes());
}

void graph_state::look_at_roots() {
  ledger::read_locks read;
  for (auto root : closure_->roots()) read.keys.push_back(closure_->nodes()[root].key);
  transact<ledger::lock_states>(
    self_, peers_.ledger, std::move(read), [this](ledger::lock_states& rows) { compare_roots(rows.rows); },
    [this](const error& e) { load_again_later(e); });
}

// What is there stays as it is: the builds that are compared with it have locks of their own (INV-1, INV-4).
void graph_state::compare_roots(const std::vector<ledger::lock_state>& rows) {
  if (result_ || plan_) return;
  auto nodes = closure_->nodes();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].phase != ledger::phase::realised) continue;
    auto root = closure_->roots()[i];
    nodes[root].key = check_key(rows[i].key, request_.id);
    compare_[root] = rows[i].outputs;
  }
  plan_it(std::move(nodes));
}

void graph_state::plan_it(std::vector<plan_node> nodes) {
  plan_.emplace(std::move(nodes), closure_->roots(),
                plan::options{request_.body.keep_going, request_.number, config_.retry_first, config_.retry_max,
                              config_.fail_unplaceable});
  for (auto& node : plan_->nodes()) lanes_.resize(std::max<std::size_t>(lanes_.size(), node.lane + 1));
  rt::log::info("GRAPH", "request planned id={} derivations={}", request_.id.to_string(), closure_->nodes().size());
  perform(plan_->start());
  say_doing();
}

void graph_state::check_sources(std::vector<std::uint32_t> wanted) {
  std::map<nix::store_path, std::vector<std::uint32_t>> users;
  for (auto node : wanted)
    for (auto& source : closure_->sources(node)) users[source].push_back(node);
  ledger::read_paths read;
  for (auto& [path, nodes] : users) read.paths.push_back(path);
  unchecked_ = std::move(wanted);
  transact<ledger::path_infos>(
    self_, peers_.ledger, std::move(read),
    [this, users](ledger::path_infos& known) mutable {
      unchecked_.reset();
      for (auto& info : known.rows) users.erase(info.path);
      std::map<std::uint32_t, std::string> impossible;
      for (auto& [path, nodes] : users)
        for (auto node : nodes)
          impossible.emplace(node, "its source " + path.to_string() + " is in no store of the farm; submit it again");
      perform(plan_->begin(impossible));
      watch_awaited();
    },
    [this](const error& e) { // the next repeat() asks again
      rt::log::warn("GRAPH", "sources not looked up, tried again id={} error={}", request_.id.to_string(), to_string(e));
    });
}

} // namespace coppice::actors
