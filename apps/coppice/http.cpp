#include "apps/coppice/http.hpp"

#include "apps/common/text.hpp"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <optional>
#include <thread>

namespace coppice::app {
namespace {

constexpr std::size_t refusal_bytes_max = 1024;
constexpr long redirects_max = 2;
/// Bytes of an upload that were read and not yet sent.
constexpr std::size_t channel_bytes_max = 1 << 20;

/// Carries bytes from a writer's thread to a reader's; the writer waits while it is full.
class channel {
public:
  expected<void> write(std::string_view bytes) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return held_.size() - at_ < channel_bytes_max || closed_; });
    if (closed_) return fail(ec::unavailable, "the other side ended the transfer");
    held_.erase(0, at_);
    at_ = 0;
    held_ += bytes;
    changed_.notify_all();
    return {};
  }
  /// No more comes; an error reaches the reader instead of the end.
  void end(const expected<void>& how) {
    const std::lock_guard lock(mutex_);
    if (!how) failure_ = how.error();
    ended_ = true;
    changed_.notify_all();
  }
  /// 0 at the end; nothing after an error.
  std::optional<std::size_t> read(char* into, std::size_t bytes_max) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return at_ < held_.size() || ended_; });
    if (failure_) return {};
    const auto taken = std::min(bytes_max, held_.size() - at_);
    held_.copy(into, taken, at_);
    at_ += taken;
    changed_.notify_all();
    return taken;
  }
  /// The reader wants no more.
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  /// Only after the writer ended.
  const std::optional<error>& failure() const { return failure_; }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string held_;
  std::size_t at_ = 0;
  bool ended_ = false, closed_ = false;
  std::optional<error> failure_;
};

void init_libcurl() {
  static const CURLcode done = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (done != CURLE_OK) throw std::bad_alloc();
}

} // namespace

struct http_session::handle {
  CURL* easy = curl_easy_init();
  curl_slist* headers = nullptr;
  http_reply* reply = nullptr;
  const store::byte_sink* sink = nullptr;
  channel* source = nullptr;
  std::uint64_t from = 0; ///< bytes to be left out if the server does not do it
  std::optional<error> sink_failure;

  ~handle() {
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
  }
  template <class Value>
  void set(CURLoption option, Value value) {
    if (curl_easy_setopt(easy, option, value) != CURLE_OK)
      throw std::bad_alloc(); // options are constants: only memory can lack
  }
  static std::size_t on_body(char* bytes, std::size_t, std::size_t size, void* self) {
    auto& h = *static_cast<handle*>(self);
    curl_easy_getinfo(h.easy, CURLINFO_RESPONSE_CODE, &h.reply->status);
    if (!h.reply->ok() || !h.sink) {
      h.reply->refusal.append(bytes, std::min(size, refusal_bytes_max - h.reply->refusal.size()));
      return size;
    }
    std::string_view body{bytes, size};
    if (h.reply->status != 206) {
      const auto skipped = std::min<std::uint64_t>(h.from, size);
      h.from -= skipped;
      body.remove_prefix(skipped);
    }
    auto taken = body.empty() ? expected<void>{} : (*h.sink)(body);
    if (taken) return size;
    h.sink_failure = taken.error();
    return 0; // not all taken: libcurl ends the transfer
  }
  static std::size_t on_read(char* into, std::size_t size, std::size_t count, void* self) {
    return static_cast<handle*>(self)->source->read(into, size * count).value_or(CURL_READFUNC_ABORT);
  }
  static int on_progress(void* stop, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return static_cast<const std::atomic<bool>*>(stop)->load() ? 1 : 0;
  }
};

http_session::http_session(const std::atomic<bool>& stop) : stop_(stop) {
  init_libcurl();
  handle_ = std::make_unique<handle>();
  if (!handle_->easy) throw std::bad_alloc();
}
http_session::~http_session() = default;

expected<http_reply> http_session::run(const std::string& url, http_reply& reply) {
  auto& h = *handle_;
  h.reply = &reply;
  char words[CURL_ERROR_SIZE] = "";
  h.set(CURLOPT_URL, url.c_str());
  h.set(CURLOPT_PROTOCOLS_STR, "http,https");
  h.set(CURLOPT_PROXY, "");
  h.set(CURLOPT_NOSIGNAL, 1L);
  h.set(CURLOPT_ERRORBUFFER, words);
  h.set(CURLOPT_CONNECTTIMEOUT, 10L);
  h.set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  h.set(CURLOPT_LOW_SPEED_TIME, 60L);
  h.set(CURLOPT_WRITEFUNCTION, &handle::on_body);
  h.set(CURLOPT_WRITEDATA, static_cast<void*>(&h));
  h.set(CURLOPT_NOPROGRESS, 0L);
  h.set(CURLOPT_XFERINFOFUNCTION, &handle::on_progress);
  h.set(CURLOPT_XFERINFODATA, const_cast<void*>(static_cast<const void*>(&stop_)));
  const auto done = curl_easy_perform(h.easy);
  curl_easy_getinfo(h.easy, CURLINFO_RESPONSE_CODE, &reply.status);
  curl_easy_reset(h.easy);
  curl_slist_free_all(h.headers);
  h.headers = nullptr;
  reply.refusal = cleaned(reply.refusal);
  if (h.sink_failure) return tl::unexpected(*std::exchange(h.sink_failure, {}));
  if (done == CURLE_ABORTED_BY_CALLBACK && stop_) return fail(ec::shutdown, fmt::format("{}: interrupted", url));
  if (done == CURLE_OK) return reply;
  return fail(ec::unavailable, fmt::format("{}: {}", url, *words ? words : curl_easy_strerror(done)));
}

expected<http_reply> http_session::get(const std::string& url, const store::byte_sink& body, std::uint64_t from) {
  auto& h = *handle_;
  h.sink = &body;
  h.from = from;
  const auto range = fmt::format("{}-", from);
  if (from > 0) h.set(CURLOPT_RANGE, range.c_str());
  h.set(CURLOPT_FOLLOWLOCATION, 1L); // to where the farm's store has it
  h.set(CURLOPT_MAXREDIRS, redirects_max);
  h.set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  http_reply reply;
  auto done = run(url, reply);
  h.sink = nullptr;
  return done;
}

expected<http_reply> http_session::put(const std::string& url, const std::string& ticket,
                                       const store::byte_source& body) {
  auto& h = *handle_;
  channel bytes;
  h.source = &bytes;
  std::thread writer([&] { bytes.end(body([&](std::string_view chunk) { return bytes.write(chunk); })); });
  for (const auto& header : {"Authorization: Bearer " + ticket, std::string("Expect:"),
                             std::string("Content-Type: application/octet-stream")})
    h.headers = curl_slist_append(h.headers, header.c_str());
  h.set(CURLOPT_HTTPHEADER, h.headers);
  h.set(CURLOPT_UPLOAD, 1L);
  h.set(CURLOPT_READFUNCTION, &handle::on_read);
  h.set(CURLOPT_READDATA, static_cast<void*>(&h));
  http_reply reply;
  auto done = run(url, reply);
  bytes.close();
  writer.join();
  h.source = nullptr;
  // The source's failure is the cause, unless it only noticed that the transfer had ended.
  if (bytes.failure() && bytes.failure()->code != ec::unavailable) return tl::unexpected(*bytes.failure());
  return done;
}

error refusal_error(const http_reply& reply, const std::string& tried) {
  const auto code = reply.status >= 500 || reply.status == 408 || reply.status == 429 ? ec::unavailable
                    : reply.status == 401 || reply.status == 403                      ? ec::forbidden
                    : reply.status == 404                                             ? ec::not_found
                    : reply.status == 413                                             ? ec::limit_exceeded
                                                                                      : ec::invalid;
  auto text = fmt::format("{}: the server answered {}", tried, reply.status);
  if (!reply.refusal.empty()) text += ": " + reply.refusal;
  return {code, std::move(text)};
}

} // namespace coppice::app
