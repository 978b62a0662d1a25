#pragma once

#include "messages/errors.hpp"

#include <cstddef>
#include <functional>

namespace coppice::app {

/// Calls `work(i)` for all i < count, on at most `threads` threads at once; the first error ends the rest early and is
/// returned.
expected<void> in_parallel(std::size_t count, std::size_t threads,
                           const std::function<expected<void>(std::size_t)>& work);

/// Calls `work` until it gives something else than `unavailable`, at most `tries` times, with growing pauses between.
expected<void> with_retries(std::size_t tries, const std::function<expected<void>()>& work);

} // namespace coppice::app
