#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace httplib {
struct Request;
struct Response;
} // namespace httplib

namespace coppice::actors {

/// Hands a request's body over in pieces until the callback says false; true only if all of it was taken.
using body_reader = std::function<bool(const std::function<bool(std::string_view)>&)>;

/// What a server does with requests, on many threads at once.
struct http_routes {
  /// GET and HEAD; ranges are for the handler to see to.
  std::function<void(const httplib::Request&, httplib::Response&)> get;
  /// Whether a PUT's body is wanted; else the response says why not. May be asked twice about one request.
  std::function<bool(const httplib::Request&, httplib::Response&)> admits;
  /// PUT; what it leaves of the body costs the connection.
  std::function<void(const httplib::Request&, httplib::Response&, const body_reader&)> put;
  /// DELETE.
  std::function<void(const httplib::Request&, httplib::Response&)> remove;
};

struct http_limits {
  std::size_t connections_max = 256;      ///< a further one takes the place of an idle one, or waits
  std::size_t requests_max = 10'000;      ///< of one connection
  std::size_t head_bytes_max = 32 * 1024; ///< request line and headers
  std::chrono::milliseconds idle_max{15'000};
  std::chrono::milliseconds stall_max{30'000};
  std::uint64_t bytes_per_second_min = 1024;
};

/// An HTTP/1.1 server with a thread for each connection. The protocol is cpp-httplib's; sockets, bounds, deadlines and
/// stopping are not, because its own server polls, keeps no bounds, and lets children inherit its sockets.
class http_server {
public:
  /// Listens at "host:port" or "[address]:port", at `port` instead of the one named if it is not 0; throws
  /// std::runtime_error if it cannot.
  http_server(const std::string& listen, int port, http_routes routes, const http_limits& limits);
  /// Cuts all connections off and waits for the handlers, which can tell by failing reads; what else they wait for must
  /// end by itself.
  ~http_server();

  /// "http://host:port".
  const std::string& url() const;
  int port() const;

private:
  class engine;
  std::unique_ptr<engine> engine_;
};

/// Answers with a line of text.
void respond(httplib::Response& res, int status, const std::string& text);

} // namespace coppice::actors
