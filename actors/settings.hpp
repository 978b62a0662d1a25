#pragma once

#include "messages/reflect.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace coppice::actors {

/// Limits of one build; each ends it in a failure class of its own.
struct limit_settings {
  std::chrono::milliseconds timeout{0};   ///< in all; 0: none
  std::chrono::milliseconds max_silent{0}; ///< without output; 0: none
  std::uint64_t log_bytes_max = 64u << 20;
  std::uint64_t nar_bytes_max = std::uint64_t{16} << 30; ///< of one output
  std::chrono::milliseconds kill_grace{2'000}; ///< between TERM and KILL
  COPPICE_STRUCT(limit_settings, 1, timeout, 2, max_silent, 3, log_bytes_max, 4, nar_bytes_max, 5, kill_grace)
};

/// Binary caches of others, asked before anything is built.
struct upstream_settings {
  std::vector<std::string> substituters;        ///< base URLs: http, https or file
  std::vector<std::string> trusted_public_keys; ///< "name:base64": whose signatures count
  std::chrono::milliseconds timeout{10'000};    ///< of silence, after which a cache did not answer
  COPPICE_STRUCT(upstream_settings, 1, substituters, 2, trusted_public_keys, 3, timeout)
};

/// What a node is told by its configuration file (config/node.toml documents every key) and its command line.
struct node_settings {
  std::string node = "";                 ///< name of this machine; empty: the host's name
  std::string state_dir = "";            ///< empty: see default_state_dir()
  std::string listen = "tcp://127.0.0.1:0";
  std::string http = "127.0.0.1:0";
  std::string http_url = "";             ///< how others reach it; empty: as it listens
  std::string log_level = "info";
  std::uint32_t max_jobs = 0;            ///< builds at once; 0: one per CPU
  std::uint32_t cores = 1;               ///< NIX_BUILD_CORES of a build; 0: all CPUs
  std::vector<std::string> systems;      ///< empty: this machine's
  std::vector<std::string> features{"big-parallel", "nixos-test", "benchmark"}; ///< system features it offers
  std::vector<std::string> sandbox_paths; ///< host directories to bind read-only, "DST=SRC" or a path, "?" if optional
  std::string store_dir = "";            ///< empty: in the state directory; "/nix/store": the machine's own store
  std::uint32_t threads = 0;             ///< for hashing and files; 0: one per CPU
  std::int32_t compression_level = 3;    ///< zstd's
  limit_settings limits;
  upstream_settings upstream;
  COPPICE_STRUCT(node_settings, 1, node, 2, state_dir, 3, listen, 4, http, 5, log_level, 6, max_jobs, 7, cores, 8,
                 systems, 9, features, 10, sandbox_paths, 11, store_dir, 12, threads, 13, compression_level, 14, limits, 15,
                 http_url, 16, upstream)
};

} // namespace coppice::actors
