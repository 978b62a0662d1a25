#pragma once

#include "messages/events.hpp"
#include "messages/reflect.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace coppice::actors {

/// What the machine keeps for itself: a build that does not fit beside it waits.
struct reserve_settings {
  std::uint64_t memory_bytes = std::uint64_t{128} << 20;    ///< of each build, held for it from before its start
  std::uint64_t disk_bytes = std::uint64_t{256} << 20;      ///< likewise, until it is over
  std::uint64_t memory_free_min = std::uint64_t{128} << 20; ///< below it no build starts
  /// Of the file systems of store and state. Below it no build starts, and running ones that use more than that
  /// themselves are ended and tried again.
  std::uint64_t disk_free_min = std::uint64_t{1} << 30;
  COPPICE_STRUCT(reserve_settings, 1, memory_bytes, 2, disk_bytes, 3, memory_free_min, 4, disk_free_min)
};

/// What builds that require a system feature reserve at least; what is 0 is as for others.
struct feature_reserve_settings {
  std::string feature;
  bool all_cores = false; ///< of the machine: nothing that computes runs beside it
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t disk_bytes = 0;
  COPPICE_STRUCT(feature_reserve_settings, 1, feature, 2, all_cores, 3, cores, 4, memory_bytes, 5, disk_bytes)
};

/// What all builds together may reserve.
struct machine_settings {
  std::uint32_t cores = 0;        ///< 0: one per CPU, or as many as max_jobs builds take, if that is more
  std::uint64_t memory_bytes = 0; ///< 0: what is there
  std::uint64_t disk_bytes = 0;   ///< likewise
  std::vector<feature_reserve_settings> reserve{{"big-parallel", true}};
  COPPICE_STRUCT(machine_settings, 1, cores, 2, memory_bytes, 3, disk_bytes, 4, reserve)
};

/// From which pressure on the machine on no further build starts, until it is well below again. 0: none is too much.
struct pressure_settings {
  std::uint32_t cpu = 0;     ///< percent of time in which somebody waits for a CPU: builds get slower, and none fails
  std::uint32_t memory = 30; ///< percent of time in which nobody gets on for want of memory
  std::uint32_t io = 0;      ///< likewise, of the disks
  std::uint32_t load = 0;    ///< runnable tasks for each CPU, times 100; looked at where the kernel has no PSI
  COPPICE_STRUCT(pressure_settings, 1, cpu, 2, memory, 3, io, 4, load)
};

/// Limits of builds; those of one build end it in a failure class of their own. 0: none.
struct limit_settings {
  std::chrono::milliseconds timeout{0};   ///< in all; 0: none
  std::chrono::milliseconds max_silent{0}; ///< without output; 0: none
  std::uint64_t log_bytes_max = 64u << 20;
  std::uint64_t nar_bytes_max = std::uint64_t{16} << 30; ///< of one output
  std::chrono::milliseconds kill_grace{2'000}; ///< between TERM and KILL
  std::uint64_t memory_bytes_max = 0;           ///< of all its processes, files in memory (/tmp, /dev/shm) included
  std::uint64_t processes_max = 10'000;         ///< and threads, at once
  std::uint64_t disk_bytes_max = std::uint64_t{128} << 30; ///< of its scratch and its outputs, before packing
  std::uint64_t files_max = 10'000'000;         ///< likewise, directories included
  bool cgroups = true; ///< false: memory and processes are watched and limited without control groups
  std::uint32_t io_jobs = 4; ///< builds at once that wait for network or disk, beside max_jobs; at least 1
  reserve_settings reserve;
  pressure_settings pressure;
  COPPICE_STRUCT(limit_settings, 1, timeout, 2, max_silent, 3, log_bytes_max, 4, nar_bytes_max, 5, kill_grace, 6,
                 memory_bytes_max, 7, processes_max, 8, disk_bytes_max, 9, files_max, 10, cgroups, 11, io_jobs, 12,
                 reserve, 13, pressure)
};

/// Binary caches of others, asked before anything is built.
struct upstream_settings {
  std::vector<std::string> substituters;        ///< base URLs: http, https or file
  std::vector<std::string> trusted_public_keys; ///< "name:base64": whose signatures count
  std::chrono::milliseconds timeout{10'000};    ///< of silence, after which a cache did not answer
  COPPICE_STRUCT(upstream_settings, 1, substituters, 2, trusted_public_keys, 3, timeout)
};

/// What is tried again, how often, and what is remembered of what failed (reliability.md 4.12).
struct failure_settings {
  std::uint32_t attempts_max = 5; ///< in a row that end in something that passes; then the step fails
  std::chrono::milliseconds retry_first{1'000}; ///< wait after the first of them; doubled with each
  std::chrono::milliseconds retry_max{60'000};  ///< the longest wait
  std::uint32_t poison_max = 3; ///< machines that a derivation may take down
  std::uint32_t threshold = 3;  ///< failures after which later requests are answered with the last one; 0: never
  std::chrono::milliseconds decay{3'600'000}; ///< time after which one failure fewer counts; 0: they never fade
  bool fail_unplaceable = false; ///< a step that no machine can take fails, instead of waiting for one that can
  COPPICE_STRUCT(failure_settings, 1, attempts_max, 2, retry_first, 3, retry_max, 4, poison_max, 5, threshold, 6, decay, 7,
                 fail_unplaceable)
};

/// For how long a member's locks last without a word from it (reliability.md 4.4).
struct lease_settings {
  std::chrono::milliseconds ttl{30'000};        ///< then others take over; a member's must not be longer than its hub's
  std::chrono::milliseconds renew{5'000};       ///< between two keep-alives
  std::chrono::milliseconds guard{1'000};       ///< a member takes its lease to be over so long before the hub may
  std::chrono::milliseconds freeze_max{120'000}; ///< so long a build stands still without a lease, then it is killed
  COPPICE_STRUCT(lease_settings, 1, ttl, 2, renew, 3, guard, 4, freeze_max)
};

/// A bucket of an S3 server in which the farm's blobs are, instead of the hub's disk.
struct s3_settings {
  std::string bucket = "";               ///< empty: no S3
  std::string endpoint = "";             ///< "https://HOST[:PORT]"
  std::string region = "us-east-1";
  bool virtual_host = false;             ///< the bucket is named in the host, not in the path
  std::string credentials_file = "";     ///< empty: from the environment, else ~/.aws/credentials
  std::string profile = "default";       ///< in that file
  bool redirect = true;                  ///< readers are sent to URLs of the bucket instead of served
  std::chrono::milliseconds url_valid{3'600'000}; ///< for how long such a URL is good, at most a week
  COPPICE_STRUCT(s3_settings, 1, bucket, 2, endpoint, 3, region, 4, virtual_host, 5, credentials_file, 6, profile, 7,
                 redirect, 8, url_valid)
};

/// Where the ledger is; for a member it is where its hub says.
struct ledger_settings {
  std::vector<std::string> etcd;         ///< endpoints of one cluster, "http://HOST:PORT" or "https://…"; none: a file of this node's
  std::string etcd_prefix = "/coppice/"; ///< of all its keys there
  std::string etcd_ca = "";              ///< file with what https endpoints are checked with; empty: the system's
  std::string etcd_cert = "";            ///< files with the certificate and key that this node shows; empty: none
  std::string etcd_key = "";
  std::string etcd_user = "";            ///< to log in as; empty: nobody
  std::string etcd_password_file = "";   ///< readable by its owner alone; one line
  std::chrono::seconds etcd_lease{10};   ///< without a word from its machine it may be opened by another; at least 1 s
  COPPICE_STRUCT(ledger_settings, 1, etcd, 2, etcd_prefix, 3, etcd_ca, 4, etcd_cert, 5, etcd_key, 6, etcd_user, 7,
                 etcd_password_file, 8, etcd_lease)
};

/// The machines on which a farm's hub may run, on one at a time: its ledger is in etcd, its blobs are in a bucket.
struct takeover_settings {
  std::string machine = "";           ///< this one's name among them; empty: the hub runs here and nowhere else
  std::vector<std::string> endpoints; ///< where the hub is reached on each of them, for whoever is invited
  COPPICE_STRUCT(takeover_settings, 1, machine, 2, endpoints)
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
  std::uint32_t cores = 1; ///< that a build reserves, its NIX_BUILD_CORES; 0: an even share of machine.cores
  std::vector<std::string> systems;      ///< empty: this machine's
  std::vector<std::string> features{"big-parallel", "nixos-test", "benchmark"}; ///< system features it offers
  std::vector<std::string> mandatory_features; ///< likewise, and it takes only jobs that require all of these
  std::vector<std::string> sandbox_paths; ///< host directories to bind read-only, "DST=SRC" or a path, "?" if optional
  std::string store_dir = "";            ///< empty: in the state directory; "/nix/store": the machine's own store
  std::uint32_t threads = 0;             ///< for hashing and files; 0: one per CPU
  std::int32_t compression_level = 3;    ///< zstd's
  std::uint32_t events_max = farm_events_kept_max; ///< kept in memory for those who come late; at least 1
  limit_settings limits;
  upstream_settings upstream;
  failure_settings failures;
  std::vector<std::string> hub;          ///< endpoints of the node that keeps the ledger; none: this one does
  std::string hub_node = "";             ///< its name
  std::string hub_key = "";              ///< its public key
  std::string secret_key = "";           ///< this node's own, by which the hub knows it; empty: made at the first start
  lease_settings lease;
  s3_settings s3;
  ledger_settings ledger;
  takeover_settings takeover;
  machine_settings machine;
  COPPICE_STRUCT(node_settings, 1, node, 2, state_dir, 3, listen, 4, http, 5, log_level, 6, max_jobs, 7, cores, 8,
                 systems, 9, features, 10, sandbox_paths, 11, store_dir, 12, threads, 13, compression_level, 14, limits,
                 15, http_url, 16, upstream, 17, failures, 18, hub, 19, hub_key, 20, secret_key, 21, hub_node, 22,
                 mandatory_features, 23, events_max, 24, lease, 25, s3, 26, ledger, 27, takeover, 28, machine)
};

/// Where other machines reach this one's CACHE_SERVER, as far as the settings say: `http_url`, else `http` if it names
/// an address and a port that others can connect to; empty if they cannot.
std::string url_for_others(const node_settings& s);

/// Whether a URL names a machine: not all addresses, and not the one that everybody has for himself.
bool is_for_others(const std::string& url);

} // namespace coppice::actors
