#pragma once

#include "bench/support/measure.hpp"

namespace coppice::bench {

/// Stock Nix without sandbox and substituters, on a private store at `root`/store: paths differ from /nix/store's, for
/// without a sandbox a builder can write nowhere else.
command nix_without_sandbox(const std::filesystem::path& root, std::vector<std::string> argv);

/// `nix-instantiate` of the expression there; the .drv paths, one a line.
expected<std::vector<std::string>> instantiate(const std::filesystem::path& root, const std::string& expression);

} // namespace coppice::bench
