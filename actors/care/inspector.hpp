#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/clock.hpp"
#include "runtime/pool.hpp"
#include "runtime/ref.hpp"
#include "store/blob_store.hpp"

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

namespace coppice::actors {

/// Answers operators out of other actors' data, and passes on their orders.
/// Takes: queue, nodes, drain, partials, retry, drop, gone, explain from clients. Sends: the same to ALLOCATOR and
/// the WORKER_POOLs of all nodes, explain to GRAPHs, reads and T17 to LEDGER, blocking work to the pool. Owns: nothing that lasts.
/// Supervised by: ROOT.
class inspector_state {
public:
  using interface = inspector_actor;
  static constexpr const char* name = "inspector";

  struct config {
    const rt::directory* directory;
    std::string graphs_path; ///< of GRAPH_SUP
    store::blob_store* blobs;
    rt::executor* pool;
    const rt::clock* clock;
    node_id node = {};                                                ///< this one
    std::function<machine_actor(const node_id&)> machine_of = {}; ///< of another node; empty: there are none
    std::chrono::milliseconds answer_within{800}; ///< of all machines; then it is told who did not
    std::size_t graphs_asked_max = 1'000; ///< for one explanation; further requests are not heard
  };
  struct peers {
    ledger_actor ledger;
    allocator_actor allocator;
    worker_pool_actor pool;
  };
  inspector_state(rt::self<interface>* self, config c, peers p);
  interface::behavior_type make_behavior();

private:
  /// One explanation on its way: the steps below one after the other, then it is delivered.
  struct inquiry {
    explain_query what;
    explanation found;
    std::size_t graphs_open = 0;
    rt::reply<explanation> out;
  };
  using shared_inquiry = std::shared_ptr<inquiry>;

  caf::result<ledger::done> drain(const caller& who, drain_node& order);
  /// A question to all machines.
  struct roll {
    std::set<node_id> silent;
    partial_outputs found;
    std::size_t rows_max = 0;
    rt::reply<partial_outputs> out;
  };
  /// `conflict` for a machine that there cannot be.
  expected<machine_actor> machine_of(const node_id& node) const;
  /// Passes the order on to that machine.
  template <class Atom, class Order>
  caf::result<ledger::done> order(Atom verb, const node_id& node, const Order& what);
  caf::result<partial_outputs> list_partials(const get_partials& q);
  void ask_partials(std::uint64_t id, const node_id& node, const get_partials& q);
  void finish_roll(std::uint64_t id);
  void add_tokens(partial_outputs& found, rt::reply<partial_outputs> out);
  caf::result<path_info> forget(const caller& who, const nix::store_path& path);
  void remove_and_forget(const path_info& info, rt::reply<path_info> out);
  caf::result<explanation> explain(const explain_query& q);
  void on_views(const shared_inquiry& q);
  void look_up_path(const shared_inquiry& q);
  void look_up_attempts(const shared_inquiry& q);
  void look_up_failures(const shared_inquiry& q);
  void look_up_lock(const shared_inquiry& q, const inhash& key);
  void look_up_place(const shared_inquiry& q);
  template <class Answer, class Tx, class Then>
  void read(const shared_inquiry& q, Tx tx, Then then);
  template <class Reply, class Handle, class... Ts>
  caf::result<Reply> relay(const Handle& to, Ts&&... xs);

  rt::self<interface>* self_;
  config config_;
  peers peers_;
  std::map<std::uint64_t, std::function<void(const caf::error&)>> under_way_; ///< blocking work
  std::map<std::uint64_t, roll> rolls_;
  std::uint64_t works_ = 0; ///< and rolls
};

} // namespace coppice::actors
