#include "store/upstream/http.hpp"

#include <algorithm>
#include <new>
#include <optional>
#include <string_view>
#include <thread>

namespace coppice::store {

namespace {

/// Slower than this for as long as the silence allowed is as good as silent.
constexpr long bytes_per_second_min = 512;

struct transfer {
  CURL* easy;
  const byte_sink& sink;
  const std::atomic<bool>& stop;
  std::uint64_t skip; ///< bytes that we have, and that come again if the server knows no ranges
  std::optional<error> refused;

  static std::size_t on_body(char* bytes, std::size_t, std::size_t size, void* self) {
    auto& t = *static_cast<transfer*>(self);
    long status = 0;
    curl_easy_getinfo(t.easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 0 && status != 200 && status != 206) return size;
    std::string_view body{bytes, size};
    if (status == 200) {
      const auto again = std::min<std::uint64_t>(t.skip, size);
      t.skip -= again;
      body.remove_prefix(again);
    }
    const auto taken = body.empty() ? expected<void>{} : t.sink(body);
    if (taken) return size;
    t.refused = taken.error();
    return 0; // libcurl ends the transfer
  }
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return static_cast<transfer*>(self)->stop ? 1 : 0;
  }
};

} // namespace

void init_curl() {
  static const auto done = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (done != CURLE_OK) throw std::bad_alloc();
}

curl_handle make_get(const std::string& url, const http_limits& limits) {
  init_curl();
  curl_handle made{curl_easy_init()};
  if (!made) throw std::bad_alloc();
  const auto easy = made.get();
  const auto seconds = std::max<long>(1, std::chrono::ceil<std::chrono::seconds>(limits.silence_max).count());
  set_curl(easy, CURLOPT_URL, url.c_str());
  set_curl(easy, CURLOPT_PROTOCOLS_STR, "http,https,file");
  set_curl(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  set_curl(easy, CURLOPT_FOLLOWLOCATION, 1L);
  set_curl(easy, CURLOPT_MAXREDIRS, limits.redirects_max);
  set_curl(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  set_curl(easy, CURLOPT_USERAGENT, "coppice");
  set_curl(easy, CURLOPT_NOSIGNAL, 1L);
  set_curl(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(limits.silence_max.count()));
  set_curl(easy, CURLOPT_LOW_SPEED_LIMIT, bytes_per_second_min);
  set_curl(easy, CURLOPT_LOW_SPEED_TIME, seconds);
  return made;
}

long status_of(CURL* easy, CURLcode done) {
  if (done == CURLE_FILE_COULDNT_READ_FILE) return 404;
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  return status == 0 ? 200 : status;
}

std::string why_not(CURLcode done, const char* words) {
  return *words ? words : curl_easy_strerror(done);
}

void pause_unless(const std::atomic<bool>& stop, std::chrono::milliseconds d) {
  constexpr std::chrono::milliseconds step{100};
  for (auto left = d; left.count() > 0 && !stop; left -= step)
    std::this_thread::sleep_for(std::min(step, left));
}

expected<long> http_get(const std::string& url, std::uint64_t from, const byte_sink& sink, const http_limits& limits,
                        const std::atomic<bool>& stop) {
  const auto handle = make_get(url, limits);
  const auto easy = handle.get();
  char words[CURL_ERROR_SIZE] = "";
  transfer t{easy, sink, stop, from, {}};
  const auto range = std::to_string(from) + "-";
  if (from > 0) set_curl(easy, CURLOPT_RANGE, range.c_str());
  set_curl(easy, CURLOPT_ERRORBUFFER, words);
  set_curl(easy, CURLOPT_WRITEFUNCTION, &transfer::on_body);
  set_curl(easy, CURLOPT_WRITEDATA, static_cast<void*>(&t));
  set_curl(easy, CURLOPT_NOPROGRESS, 0L);
  set_curl(easy, CURLOPT_XFERINFOFUNCTION, &transfer::on_progress);
  set_curl(easy, CURLOPT_XFERINFODATA, static_cast<void*>(&t));
  const auto done = curl_easy_perform(easy);
  if (t.refused) return tl::unexpected(*t.refused);
  if (done == CURLE_OK || done == CURLE_FILE_COULDNT_READ_FILE) return status_of(easy, done);
  if (stop) return fail(ec::shutdown, "the transfer of " + url + " was stopped");
  return fail(ec::unavailable, url + ": " + why_not(done, words));
}

} // namespace coppice::store
