#pragma once

#include "nix/store_path.hpp"

#include <string>
#include <string_view>

namespace coppice::nix {

/// What stands in a derivation for the path of its own output while that is unknown: 53 bytes.
std::string own_placeholder(std::string_view output);

/// What stands for the unknown path of another derivation's output: 53 bytes.
std::string upstream_placeholder(const store_path& drv_path, std::string_view output);

} // namespace coppice::nix
