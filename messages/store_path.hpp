#pragma once

#include "nix/store_path.hpp"

#include <caf/meta/load_callback.hpp>

namespace coppice::nix {

/// Lets a store path travel in messages: as its base name.
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, store_path& x) {
  auto base = x.base_name();
  return f(base);
}

} // namespace coppice::nix
