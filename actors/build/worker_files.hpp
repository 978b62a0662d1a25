#pragma once

#include "actors/build/build_dir.hpp"
#include "actors/build/worker.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

/// What a WORKER has done on the disk, by the pool: every call blocks.
namespace coppice::actors {

/// What was made for a build, until its WORKER takes it over: else it is removed, since the WORKER has died meanwhile.
struct build_scratch {
  explicit build_scratch(rt::executor& where) : pool(where) {}
  build_scratch(const build_scratch&) = delete;
  build_scratch& operator=(const build_scratch&) = delete;
  ~build_scratch();
  rt::executor& pool;
  std::shared_ptr<build_dir> dir;
  std::filesystem::path staging, log;
};

/// What is built, where, and under which name its control group goes.
struct build_order {
  nix::store_path drv_path;
  nix::derivation drv;
  std::vector<path_info> closure; ///< of its inputs
  std::string group;
  std::filesystem::path log;
};
/// Makes all that a sandbox needs, in `into`. `unsupported` or `invalid` if this derivation can never be built here, and
/// `missing` if the machine lacks what the settings name.
expected<void> prepare_build(const worker_state::config& c, const build_order& order, build_scratch& into);

/// Moves a finished log into the store under all its names: for the attempt, and where `nix log` looks. A file that is
/// gone was stored.
expected<void> store_log(store::blob_store& blobs, const std::filesystem::path& file, const std::vector<std::string>& keys);

/// Outputs may refer to each other: again and again those that no other one wants.
expected<void> remove_outputs(store::local_store& local, std::vector<nix::store_path> paths);

/// Makes the outputs valid, in place of those of an attempt that died before it could commit or discard them, or whose blobs
/// the farm's store has lost since. What refers to these goes with them, for it can be fetched; `conflict` if a build uses
/// any of it, or the journal keeps it.
expected<void> add_outputs(store::local_store& local, const store::kept_journal& kept,
                           const std::vector<std::pair<path_info, std::filesystem::path>>& trees);

} // namespace coppice::actors
