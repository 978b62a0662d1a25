#pragma once

#include "actors/deliver/cache_pages.hpp"
#include "actors/deliver/http_server.hpp"
#include "actors/deliver/tickets.hpp"
#include "store/blob_store.hpp"

#include <atomic>
#include <cstdint>
#include <string>

namespace coppice::actors {

/// The store for the other machines of the farm: blobs by their keys (docs/protocol.md). A machine is believed nothing
/// that can be checked: bytes must have the digest that was stated, and the one that is in the key; what is as its key
/// says is not removed; and nobody but the node itself writes what binary caches show. Any number of threads at once.
class node_blobs {
public:
  struct config {
    store::blob_store* blobs;
    const cache_pages* pages;
    const rt::clock* clock;
    const ticket_box* tickets;
    std::uint64_t blob_bytes_max;
    std::size_t puts_max; ///< and removals
  };
  explicit node_blobs(config c) : config_(c) {}

  /// Whether the request is for here.
  static bool serves(const httplib::Request& req);
  /// GET and HEAD of a blob, GET of a listing.
  void get(const httplib::Request& req, httplib::Response& res) const;
  /// Whether the body of a PUT is worth reading; else answers.
  bool admits(const httplib::Request& req, httplib::Response& res) const;
  void put(const httplib::Request& req, httplib::Response& res, const body_reader& body);
  void remove(const httplib::Request& req, httplib::Response& res);

private:
  bool knows(const httplib::Request& req, httplib::Response& res) const;
  void list(const httplib::Request& req, httplib::Response& res) const;
  expected<void> store(const std::string& key, const nix::sha256_digest& digest, const body_reader& body) const;
  expected<void> remove_bad(const std::string& key) const;

  const config config_;
  std::atomic<std::size_t> running_{0};
};

} // namespace coppice::actors
