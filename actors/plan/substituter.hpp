#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"

#include <chrono>
#include <functional>
#include <map>
#include <set>
#include <vector>

namespace coppice::actors {

/// Asks upstream binary caches, and takes over what they have.
/// Takes: find, substitute from GRAPH, find from FETCHER, import from FETCHERs of members. Sends: fetch to FETCHER,
/// import to IMPORTER, T19 to LEDGER; questions to the thread that asks caches. Owns: questions and substitutions under
/// way (soft: asked again). Supervised by: WORK_SUP.
class substituter_state {
public:
  using interface = substituter_actor;
  static constexpr const char* name = "substituter";

  /// Asks the caches; `done` may be called on any thread. See store::upstream::find.
  using question = std::function<void(std::vector<nix::store_path>, std::function<void(upstream_paths, bool)> done)>;
  struct config {
    question ask;
    /// Of a question that caches did not answer (then what is unknown is told as unknown), and of a substitution that
    /// came to nothing for another reason than what the caches have.
    unsigned tries_max = 4;
    std::chrono::milliseconds retry_first{500}; ///< doubling
  };
  struct peers {
    ledger_actor ledger;
    fetcher_actor fetcher;
    importer_actor importer;
  };
  substituter_state(rt::self<interface>* self, config c, peers p);
  interface::behavior_type make_behavior();

private:
  struct pending {
    upstream_paths result; ///< found so far, and what is to be asked again
    unsigned tries = 0;
    rt::reply<upstream_paths> out;
  };
  struct order {
    substitution what;
    std::vector<nix::store_path> paths;
    std::shared_ptr<const void> pin; ///< keeps the paths in the local store
    rt::reply<ledger::done> out;
    unsigned tries = 0;
  };
  /// What a member wants in the farm's store: all at once, or, if caches lack some of it, one after the other.
  struct import_order {
    std::vector<nix::store_path> paths;
    rt::reply<ledger::done> out;
    std::size_t at = 0; ///< of those that are taken by themselves
    bool all = true;
    std::shared_ptr<const void> pin = {};
  };
  void begin_import(std::uint64_t id);
  void next_import(std::uint64_t id);
  void end_import(std::uint64_t id, const caf::error& e);
  void ask(std::uint64_t id);
  void on_answer(std::uint64_t id, upstream_paths news, bool again);
  void fetch(std::uint64_t id);
  void import(std::uint64_t id);
  void commit(std::uint64_t id, const std::vector<path_info>& infos);
  void end(std::uint64_t id, const caf::error& e);

  rt::self<interface>* self_;
  config config_;
  peers peers_;
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, pending> pending_;
  std::map<std::uint64_t, order> orders_;
  std::map<std::uint64_t, import_order> imports_;
};

} // namespace coppice::actors
