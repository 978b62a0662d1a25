#pragma once

#include "actors/events.hpp"
#include "messages/interfaces.hpp"
#include "nix/hash.hpp"
#include "nix/store_path.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"
#include "store/blob_store.hpp"
#include "store/pack.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <set>

namespace coppice::actors {

/// What is to be packed and put.
struct upload_task {
  worker_actor worker;
  nix::store_path drv;
  std::vector<realised_output> outputs;          ///< names and paths; complete if `registered`
  std::vector<std::filesystem::path> trees;      ///< where the outputs lie now
  std::vector<std::filesystem::path> kept_trees; ///< where they lie once the WORKER has registered them
  std::set<nix::store_path> candidates;          ///< what the outputs may refer to
  std::optional<store::content_request> content;
  bool registered = false; ///< they are in the local store and in the journal of kept outputs already
  inhash key;
  fence token; ///< of the attempt
};

/// Packs one attempt's outputs and puts them into the store, durably, however often it takes.
/// Takes: nothing but its task. Sends: packed, stored, failed to its WORKER, T10 to LEDGER, import to IMPORTER, blocking
/// work to the pool.
/// Owns: the open blobs. Supervised by: UPLOADS_SUP, temporary: its WORKER starts another.
class store_uploader_state {
public:
  using interface = store_uploader_actor;
  static constexpr const char* name = "store-uploader";

  struct config {
    store::blob_store* blobs;
    rt::executor* pool;
    std::uint64_t nar_bytes_max;
    store::zstd_options compression;
    std::optional<importer_actor> importer; ///< of what outputs refer to, if there are upstream caches it may be from
    std::chrono::milliseconds retry_first{1'000}, retry_max{300'000}; ///< delays between tries, doubling
    event_port events = {};
  };
  store_uploader_state(rt::self<interface>* self, config c, ledger_actor ledger, upload_task task);
  interface::behavior_type make_behavior();

private:
  struct one {
    store::packed facts;
    generation gen;
    bool present = false;
  };
  using batch = std::shared_ptr<std::vector<one>>; ///< handed to pool threads and back, never used by both
  /// The pause after that try is over.
  void try_again(std::uint64_t after);
  void pack();
  void on_packed(const packed_outputs& p, const caf::error& e);
  void ask_generations();
  void put();
  void tell(event_kind kind);
  void register_blobs();
  void import_references();
  void finish();
  void retry(const error& e);

  rt::self<interface>* self_;
  config config_;
  ledger_actor ledger_;
  upload_task task_;
  batch packed_;
  std::size_t open_ = 0; ///< answers awaited
  std::chrono::milliseconds delay_;
  bool told_ = false; ///< the WORKER knows the packed outputs
  bool put_ = false;  ///< every blob is registered: only what they refer to may not be there
  bool pausing_ = false;
  std::uint64_t try_ = 0; ///< tells the end of one pause from that of another
};

} // namespace coppice::actors
