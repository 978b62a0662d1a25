#pragma once

#include "messages/interfaces.hpp"
#include "nix/signature.hpp"
#include "runtime/actor.hpp"
#include "runtime/clock.hpp"
#include "store/blob_store.hpp"
#include "store/blob_urls.hpp"
#include "store/local_store.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

namespace coppice::actors {

/// The port that a server was bound to, 0 before; outlives the server, so that its successor has the same one.
struct bound_port {
  std::atomic<int> value{0};
};

/// Serves the binary cache and logs over HTTP, takes uploads of clients, and is the farm's store to other machines;
/// gives them what this machine holds (docs/protocol.md). Passes on the logs that other machines write.
/// Takes: get, open. Sends: reads, T10 and add_source to LEDGER, open to other machines' CACHE_SERVERs, from threads of its own. Owns: the listening socket,
/// the threads, the tickets (a restart forgets them: clients ask for others), the files of `upload_dir`.
/// Supervised by: DELIVER_SUP.
class cache_server_state {
public:
  using interface = cache_server_actor;
  static constexpr const char* name = "cache-server";

  struct limits {
    std::size_t connections_max = 256; ///< a further one takes the place of an idle one, or waits
    std::size_t uploads_max = 8;       ///< at once; a further one: 503
    std::uint64_t upload_bytes_max = std::uint64_t{16} << 30; ///< of one source's NAR: 413
    std::size_t held_sends_max = 32;                          ///< of held paths, at once; a further one: 503
    std::size_t logs_passed_on_max = 32;                      ///< of other machines, at once; a further one: 503
    std::size_t node_puts_max = 32; ///< of other machines, at once, besides these; a further one: 503
    std::uint64_t blob_bytes_max = std::uint64_t{64} << 30;      ///< of one blob from another machine: 413
    std::uint64_t closure_bytes_max = std::uint64_t{256} << 20;  ///< of a packed closure as uploaded: 413
    std::uint64_t closure_unpacked_max = std::uint64_t{2} << 30; ///< of the same decompressed: 413
    std::chrono::milliseconds ticket_ttl{std::chrono::minutes{10}};
    std::size_t tickets_max = 10'000;                 ///< when full, the ticket that would end first is forgotten
    std::chrono::milliseconds idle_max{15'000};       ///< between two requests of a connection
    std::chrono::milliseconds stall_max{30'000};      ///< without a byte moving
    std::uint64_t bytes_per_second_min = 1024;        ///< a client that is slower for longer than stall_max is cut off
    std::chrono::milliseconds answer_timeout{10'000}; ///< of the ledger, and of another machine's server; later: 503
  };
  struct config {
    std::string listen = "127.0.0.1:0"; ///< host:port, or [address]:port; port 0: any free one
    std::string url;                    ///< how others reach it; empty: as it listens
    store::blob_store* blobs = nullptr;
    store::local_store* local = nullptr; ///< what this machine holds; null: nothing
    std::filesystem::path log_dir;       ///< logs of running attempts: "<inhash>-<fence>.log"
    std::filesystem::path upload_dir;    ///< for this server alone; emptied at birth
    std::string store_dir = "/nix/store";
    const rt::clock* clock = nullptr;
    const nix::secret_key* key = nullptr; ///< signs the narinfos of uploaded sources; null: unsigned
    bound_port* port = nullptr;           ///< null: nothing is remembered
    int compression_level = 3;            ///< zstd's, of uploaded NARs
    store::blob_urls* urls = nullptr; ///< where readers are sent for large blobs; null: they are served from here
    std::chrono::seconds urls_valid{0}; ///< for how long such a URL is good
    node_id node = {};                  ///< this one
    /// The server of another machine, whose logs are passed on to readers here; empty: none are.
    std::function<tickets_actor(const node_id&)> cache_of = {};
    cache_server_state::limits limits;
  };

  /// Listens; throws std::runtime_error if it cannot.
  cache_server_state(rt::self<interface>* self, config c, ledger_actor ledger);
  /// Cuts all connections off and ends the threads.
  ~cache_server_state();
  interface::behavior_type make_behavior();

private:
  class site;
  rt::self<interface>* self_;
  std::string url_;
  std::unique_ptr<site> site_;
};

} // namespace coppice::actors
