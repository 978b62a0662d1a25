#pragma once

#include "store/sinks.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

/// HTTP to a node's cache server. Blocks; one session per thread.
namespace coppice::app {

/// What the server said, with the beginning of its words if it refused.
struct http_reply {
  long status = 0;
  std::string refusal; ///< at most 1 kB, control characters removed; empty for 2xx
  bool ok() const { return status >= 200 && status < 300; }
};

/// One connection, kept open between requests. No proxy; a GET follows two redirects. Nobody waits longer than 10 s for a connection
/// or 60 s for the next byte.
class http_session {
public:
  /// Transfers end soon with `shutdown` once `stop` is true; it must outlive the session.
  explicit http_session(const std::atomic<bool>& stop);
  ~http_session();
  http_session(const http_session&) = delete;
  http_session& operator=(const http_session&) = delete;

  /// Passes the body of a 2xx on, from byte `from` (sent as a Range) if that is not 0. `unavailable` if the server does
  /// not answer or the transfer breaks off; the sink's own error passes.
  expected<http_reply> get(const std::string& url, const store::byte_sink& body, std::uint64_t from = 0);

  /// Sends what `body` writes. Errors as for get; the source's own error passes.
  expected<http_reply> put(const std::string& url, const std::string& ticket, const store::byte_source& body);

private:
  expected<http_reply> run(const std::string& url, http_reply& reply);
  struct handle;
  std::unique_ptr<handle> handle_;
  const std::atomic<bool>& stop_;
};

/// The error of a reply that is not ok(): `unavailable` if trying again may help (5xx, 408, 429), else by its status.
error refusal_error(const http_reply& reply, const std::string& tried);

} // namespace coppice::app
