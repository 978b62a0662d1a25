#pragma once

#include "store/sinks.hpp"

#include <curl/curl.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace coppice::store {

struct http_limits {
  std::chrono::milliseconds silence_max{10'000}; ///< without a byte, the connection included
  long redirects_max = 5;
};

struct free_curl {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
using curl_handle = std::unique_ptr<CURL, free_curl>;

/// libcurl, started once.
void init_curl();
/// A handle for GETs of http, https and file; std::bad_alloc if there is none.
curl_handle make_get(const std::string& url, const http_limits& limits);
template <class Value>
void set_curl(CURL* easy, CURLoption option, Value value) {
  if (curl_easy_setopt(easy, option, value) != CURLE_OK) throw std::bad_alloc(); // constants: only memory can lack
}
/// The status of a transfer that ended well: of HTTP, or 200 for a file; 404 for a file that cannot be read.
long status_of(CURL* easy, CURLcode done);
/// Why it did not end well, for people.
std::string why_not(CURLcode done, const char* words);

/// Sleeps so long, or until soon after `stop` is true.
void pause_unless(const std::atomic<bool>& stop, std::chrono::milliseconds d);

/// Passes what is at `url`, from byte `from` on, to the sink, on the calling thread, and returns the status; of another
/// status than 200 and 206 nothing is passed. `unavailable` if there is no answer or it breaks off, `shutdown` soon
/// after `stop` is true; the sink's own error passes.
expected<long> http_get(const std::string& url, std::uint64_t from, const byte_sink& sink, const http_limits& limits,
                        const std::atomic<bool>& stop);

} // namespace coppice::store
