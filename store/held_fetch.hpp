#pragma once

#include "messages/build.hpp"
#include "store/http_exchange.hpp"
#include "store/sinks.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

namespace coppice::store {

/// "/held/<sha256 of the NAR, hex>/<base name>": where a CACHE_SERVER gives a path of its machine's own store, as a NAR
/// (docs/protocol.md).
std::string held_target(const path_info& info);
inline constexpr std::string_view held_prefix = "/held/";

struct held_fetch_options {
  http_patience patience;
  std::size_t ahead_bytes_max = 1 << 20;      ///< received before somebody takes it
  unsigned cuts_max = 8;                      ///< times that one fetch may break off and be resumed
  unsigned barren_max = 2;                    ///< of them, one after the other, that brought nothing
  std::chrono::milliseconds retry_delay{200}; ///< before each of these, growing with their number
  std::size_t connections_idle_max = 8;       ///< kept open for further requests
};

/// Gets NARs from the machines that hold them. Any number of threads at once; every call blocks.
class held_fetch {
public:
  /// Ends what is under way, soon, with `shutdown` once `stop` is true, which outlives it.
  explicit held_fetch(const std::atomic<bool>& stop, held_fetch_options options = {})
      : options_(options), stop_(stop), connections_(options.connections_idle_max) {}

  /// Passes the NAR from its byte `at` on to the sink, and counts `at` on; goes on where it was cut. What it passes is
  /// for the sink to verify. `missing` if the machine does not hold it (now), `unavailable` if it cannot be reached or
  /// breaks off again and again, `overloaded` if it serves enough others, `bad_message` if it answers something else;
  /// the sink's error passes.
  expected<void> fetch(const std::string& base_url, const path_info& info, std::uint64_t& at, const byte_sink& out);

private:
  expected<void> once(const std::string& base_url, const path_info& info, std::uint64_t& at, const byte_sink& out,
                      bool& ours);

  const held_fetch_options options_;
  const std::atomic<bool>& stop_;
  http_connections connections_;
};

} // namespace coppice::store
