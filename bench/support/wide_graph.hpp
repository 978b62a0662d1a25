#pragma once

#include "bench/support/debian_graph.hpp"

namespace coppice::bench {

/// `leaves` derivations that need nothing, under one root that needs them all; `salt` makes paths of their own. Each
/// writes its name to $out with `shell`.
derivation_graph make_wide_graph(std::size_t leaves, const std::string& salt = {},
                                 const std::string& shell = "/bin/sh");

} // namespace coppice::bench
