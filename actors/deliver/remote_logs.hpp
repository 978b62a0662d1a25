#pragma once

#include "messages/build.hpp"
#include "store/http_exchange.hpp"

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>

namespace httplib {
struct Request;
struct Response;
} // namespace httplib

namespace coppice::actors {

/// Passes on, byte by byte, the logs that other machines of the farm have: while their builds run, and until the store
/// has taken them. Nothing is kept here. Any number of threads at once.
class remote_logs {
public:
  /// The URL of the server of the machine that has the log of an attempt; `not_found` if nobody has.
  using finder = std::function<expected<std::string>(const inhash&, fence)>;

  /// Ends what is under way, soon, once `stop` is true, which outlives it.
  remote_logs(finder find, std::size_t readers_max, const std::atomic<bool>& stop)
      : find_(std::move(find)), readers_max_(readers_max), stop_(stop) {}

  /// Answers a GET or HEAD of an attempt's log as that machine does, ranges included; 503 if it does not answer.
  void get(const httplib::Request& req, httplib::Response& res, const inhash& key, fence token);

private:
  const finder find_;
  const std::size_t readers_max_;
  const std::atomic<bool>& stop_;
  std::atomic<std::size_t> readers_{0};
  store::http_connections connections_{8};
};

} // namespace coppice::actors
