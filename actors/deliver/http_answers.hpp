#pragma once

#include "actors/deliver/http_server.hpp"
#include "messages/errors.hpp"
#include "store/sinks.hpp"

#include <atomic>
#include <cstdint>
#include <string>

/// What handlers of HTTP requests share.
namespace coppice::actors {

/// Answers with the error: 503 if it passes by itself.
void respond_with(httplib::Response& res, const error& e);
/// Answers 401: no ticket, or one that is unknown or over.
void respond_unknown(httplib::Response& res, const std::string& text);
/// The ticket that the request bears; empty if it bears none.
std::string ticket_of(const httplib::Request& req);

/// Passes a body of at most `bytes_max` bytes on; the first error ends it. `limit_exceeded` for a larger one,
/// `bad_message` for one that breaks off, and the sink's errors.
expected<void> take_body(const body_reader& body, std::uint64_t bytes_max, const store::byte_sink& into);

/// One of those that are served at once, while it lives.
struct turn {
  explicit turn(std::atomic<std::size_t>& n) : count(n), number(++n) {}
  turn(const turn&) = delete;
  ~turn() { --count; }
  std::atomic<std::size_t>& count;
  const std::size_t number; ///< how many they are, this one included
};

} // namespace coppice::actors
