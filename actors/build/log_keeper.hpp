#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/pool.hpp"
#include "store/blob_store.hpp"

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace coppice::actors {

/// Is asked for nothing.
using log_keeper_actor = caf::typed_actor<
    // INTERNAL: the store has the log, or not
    reacts_to<atom::stored_atom, caf::error>,
    // INTERNAL: the pause after a try is over
    reacts_to<atom::tick_atom>>;

/// Puts a log that the store did not take when its build ended there, however often it takes. A file that is left when
/// the process ends is stored by the next one.
/// Takes: nothing. Sends: nothing. Owns: the log's file. Supervised by: WORKERS_SUP, temporary: it ends with its work,
/// and outlives the WORKER that started it.
class log_keeper_state {
public:
  using interface = log_keeper_actor;
  static constexpr const char* name = "log-keeper";

  struct config {
    rt::executor* pool;       ///< outlives every actor
    store::blob_store* blobs; ///< likewise
    std::filesystem::path file;
    std::vector<std::string> keys;                                   ///< as for store_log()
    std::chrono::milliseconds retry_first{1'000}, retry_max{60'000}; ///< delays between tries, doubling
  };

  /// The worker is told of the first try as of work with that number.
  log_keeper_state(rt::self<interface>* self, config c, worker_actor worker, std::uint64_t number);
  ~log_keeper_state();
  interface::behavior_type make_behavior();

private:
  void store();
  void on_stored(const caf::error& e);

  rt::self<interface>* self_;
  const config config_;
  worker_actor worker_; ///< null once it was told
  const std::uint64_t number_;
  bool stored_ = false;
  std::chrono::milliseconds delay_;
};

} // namespace coppice::actors
