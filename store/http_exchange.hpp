#pragma once

#include "messages/errors.hpp"
#include "store/upstream/http.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace coppice::store {

/// Patience with a server. Only time in which we wait for it counts.
struct http_patience {
  std::chrono::milliseconds connect_max{10'000};
  std::chrono::milliseconds silence_max{10'000}; ///< without a byte moving
  std::chrono::milliseconds answer_max{120'000}; ///< the same, after a PUT, POST or DELETE: there is work before the answer
  std::uint64_t bytes_per_second_min = 1024;     ///< slower than this for longer than silence_max is as good as silent
};

/// Connections to servers, kept open between requests, at most `idle_max` of them. Any number of threads may use it.
class http_connections {
public:
  explicit http_connections(std::size_t idle_max) : idle_max_(idle_max) {}

private:
  friend class http_exchange;
  struct free_multi {
    void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
  };
  struct link {
    std::unique_ptr<CURLM, free_multi> multi; ///< has the connection
    curl_handle easy;
  };
  link take();
  void give_back(link l);

  const std::size_t idle_max_;
  std::mutex mutex_;
  std::vector<link> idle_;
};

struct http_request {
  std::string method; ///< GET, HEAD, PUT, POST or DELETE
  std::string url;    ///< http or https
  std::vector<std::string> headers;
  /// Of a PUT or POST: fills as much of `into` as there is from `offset` on; may be read again from the start.
  struct body {
    std::uint64_t size = 0;
    std::function<expected<std::size_t>(std::uint64_t offset, std::span<char> into)> read;
  };
  std::optional<body> sends;
};

/// One HTTP/1.1 request and its answer, driven by the thread that waits for it: no proxy, no redirects. An error ends
/// it: `unavailable` if the server does not answer, breaks off or is slower than the patience with it, `shutdown` soon
/// after `stop` is true, or the request's body's own.
class http_exchange {
public:
  /// At most `ahead_bytes_max`, and a buffer of libcurl's, are received before they are read. All but the request
  /// must outlive it.
  http_exchange(http_connections& connections, http_request request, const http_patience& patience,
                std::size_t ahead_bytes_max, const std::atomic<bool>& stop);
  /// Cuts off what is still under way.
  ~http_exchange();
  http_exchange(const http_exchange&) = delete;
  http_exchange& operator=(const http_exchange&) = delete;

  /// Waits for the head of the answer; its status.
  expected<long> status();
  /// A header of the answer, after status(); empty if it is absent.
  std::string header(const char* name) const;
  /// The next bytes of the answer's body, at least one unless it is over.
  expected<std::size_t> read(std::span<char> into);
  /// The beginning of the rest of the body, for people.
  std::string words();

private:
  static int on_socket(void* self, curl_socket_t socket, curlsocktype purpose);
  static std::size_t on_body(char* bytes, std::size_t, std::size_t size, void* self);
  static std::size_t on_read(char* into, std::size_t size, std::size_t count, void* self);
  static int on_seek(void* self, curl_off_t offset, int origin);
  void set_up();
  expected<void> advance();
  expected<void> end(CURLcode how);
  expected<void> wait();
  bool holds() const { return taken_ < held_.size(); }

  http_connections& connections_;
  http_connections::link link_;
  const http_request request_;
  const http_patience patience_;
  const std::size_t ahead_bytes_max_;
  const std::atomic<bool>& stop_;
  curl_slist* headers_ = nullptr;
  char words_[CURL_ERROR_SIZE] = "";
  std::uint64_t sent_ = 0;
  std::string held_; ///< received, of which `taken_` were read
  std::size_t taken_ = 0;
  bool headed_ = false, paused_ = false, over_ = false;
  std::optional<error> sends_failure_, failure_;
  std::uint64_t moved_ = 0;                        ///< bytes, both ways
  std::chrono::nanoseconds silent_{0}, waited_{0}; ///< since the last of them; in all
};

} // namespace coppice::store
