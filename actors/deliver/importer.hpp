#pragma once

#include "messages/interfaces.hpp"
#include "nix/signature.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"
#include "store/blob_store.hpp"
#include "store/local_store.hpp"
#include "store/pack.hpp"

#include <deque>
#include <map>
#include <memory>
#include <set>

namespace coppice::actors {

/// Puts paths of this machine's store into the farm's store, each once: what came from upstream caches and is part of a
/// result, so that the farm alone can serve the result's closure.
/// Takes: import from SUBSTITUTER, STORE_UPLOADER. Sends: reads, T10, add_source to LEDGER; blocking work to the pool.
/// Owns: paths under way. Supervised by: WORK_SUP.
class importer_state {
public:
  using interface = importer_actor;
  static constexpr const char* name = "importer";

  struct config {
    store::local_store* local;
    store::blob_store* blobs;
    rt::executor* pool;
    std::shared_ptr<const nix::secret_key> key; ///< narinfos are signed with
    store::zstd_options compression;
    std::size_t packs_max = 4; ///< paths packed at once; further ones wait
  };
  importer_state(rt::self<interface>* self, config c, ledger_actor ledger);
  interface::behavior_type make_behavior();

private:
  /// A request: paths that the ledger did not know, references first.
  struct order {
    std::vector<path_info> paths;
    std::set<nix::store_path> open; ///< those whose blobs are not registered yet
    rt::reply<ledger::done> out;
  };
  using open_blob = std::shared_ptr<store::blob_writer>;
  void begin(std::uint64_t id, std::vector<path_info> closure);
  void pump();
  void pack(const path_info& info);
  void on_packed(const path_info& info, const caf::error& e);
  void put(const path_info& info, bool present);
  void on_put(const nix::store_path& path, const caf::error& e);
  void on_registered(const path_info& info);
  void publish(std::uint64_t id);
  void enter(std::uint64_t id, std::size_t at);
  void drop(const nix::store_path& path, const error& e);
  void fail(std::uint64_t id, const error& e);

  rt::self<interface>* self_;
  config config_;
  ledger_actor ledger_;
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, order> orders_;
  std::map<nix::store_path, path_info> under_way_; ///< wanted by an order; with its blob once packed
  std::map<nix::store_path, std::shared_ptr<store::packed>> packed_;
  std::deque<nix::store_path> waiting_;
  std::size_t packing_ = 0;
};

} // namespace coppice::actors
