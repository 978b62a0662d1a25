#pragma once

#include "messages/interfaces.hpp"
#include "runtime/actor.hpp"
#include "runtime/curve.hpp"
#include "runtime/pool.hpp"

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

namespace coppice::actors {

using key_keeper_actor = caf::typed_actor<caf::reacts_to<atom::tick_atom>,               ///< look at the file
                                          caf::reacts_to<atom::stored_atom, std::string, caf::error>>; ///< what came of it

/// Has the machines on which the hub may run let in whom this one lets in, as its allow-list is now.
/// Takes: tick. Sends: nothing. Owns: which list the others are known to have (soft: a restart writes it once more).
/// Supervised by: ROOT, permanent.
class key_keeper_state {
public:
  using interface = key_keeper_actor;
  static constexpr const char* name = "key-keeper";

  struct config {
    std::filesystem::path authorized;
    std::function<expected<void>(const rt::authorized_keys&)> authorize; ///< blocks; any thread
    rt::executor* pool;
    std::chrono::milliseconds interval{1'000}; ///< between two looks, and two tries
  };
  key_keeper_state(rt::self<interface>* self, config c);
  interface::behavior_type make_behavior();

private:
  void look();
  void on_stored(std::string list, const caf::error& e);

  rt::self<interface>* self_;
  config config_;
  std::string stored_; ///< the list that the others have, encoded; empty: not known
  std::string said_;   ///< the trouble that was told last
};

} // namespace coppice::actors
