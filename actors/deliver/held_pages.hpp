#pragma once

#include "store/local_store.hpp"

#include <atomic>
#include <cstddef>

namespace httplib {
struct Request;
struct Response;
} // namespace httplib

namespace coppice::actors {

/// What this machine holds in its own store, for the other machines of the farm (docs/protocol.md, "Held paths"): a
/// path as a NAR, if it is valid here with the very hash that is asked for. Any number of threads at once.
class held_pages {
public:
  /// Sends to at most `sends_max` at once: the machine builds, too. `local` null: it holds nothing.
  held_pages(store::local_store* local, std::size_t sends_max) : local_(local), sends_max_(sends_max) {}

  /// Whether the request is for here.
  static bool serves(const httplib::Request& req);
  /// GET and HEAD.
  void get(const httplib::Request& req, httplib::Response& res) const;

private:
  store::local_store* local_;
  const std::size_t sends_max_;
  mutable std::atomic<std::size_t> sending_{0};
};

} // namespace coppice::actors
