#pragma once

#include "messages/errors.hpp"

#include <CLI/CLI.hpp>

#include <functional>

namespace coppice::bench {

/// Parses the command line and runs; gives what main returns. What fails, also by an exception, is said with the
/// program's name.
int bench_main(CLI::App& app, int argc, char** argv, const std::function<expected<void>()>& run);

} // namespace coppice::bench
