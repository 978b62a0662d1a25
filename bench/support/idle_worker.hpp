#pragma once

#include "actors/build/worker_pool.hpp"

namespace coppice::bench {

/// WORKER_POOL's maker of WORKERs that build nothing: each starts its attempt, commits outputs whose bytes are `blob`,
/// in its first generation, and ends.
actors::worker_pool_state::worker_maker idle_workers(blob_id blob);

} // namespace coppice::bench
