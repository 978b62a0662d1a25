#pragma once

#include "messages/ids.hpp"
#include "store/blob_store.hpp"
#include "store/blob_urls.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace httplib {
struct Request;
struct Response;
} // namespace httplib

namespace coppice::actors {

/// The part of a body that a Range header asks for.
struct byte_range {
  std::uint64_t first = 0;
  std::uint64_t length = 0;
  enum class kind : std::uint8_t { whole, part, unsatisfiable } what = kind::whole;
  friend bool operator==(const byte_range&, const byte_range&) = default;
};

/// Reads "bytes=a-b", "bytes=a-" or "bytes=-n" for a body of `size` bytes. Anything else, several ranges included, asks
/// for the whole, as RFC 9110 allows.
byte_range parse_range(std::string_view header, std::uint64_t size);

/// What can be read over HTTP: the binary cache as Nix knows it, and logs of attempts. Any number of threads at once.
class cache_pages {
public:
  /// Answers for a log that neither this machine nor the store has.
  using log_elsewhere = std::function<void(const httplib::Request&, httplib::Response&, const inhash&, fence)>;

  /// `urls`: where clients are sent for large blobs, by URLs that are good for `urls_valid`; null: they are served.
  /// `elsewhere`: null: such a log is not found.
  cache_pages(store::blob_store& blobs, std::filesystem::path log_dir, std::string store_dir,
              store::blob_urls* urls = nullptr, std::chrono::seconds urls_valid = {}, log_elsewhere elsewhere = {})
      : blobs_(blobs)
      , log_dir_(std::move(log_dir))
      , store_dir_(std::move(store_dir))
      , urls_(urls)
      , urls_valid_(urls_valid)
      , elsewhere_(std::move(elsewhere)) {}

  /// Answers a GET or HEAD.
  void get(const httplib::Request& req, httplib::Response& res) const;
  /// The same of a blob, whoever asks: with an ETag, ranges, If-Range and If-Match.
  void send_blob(const httplib::Request& req, httplib::Response& res, const std::string& key, const char* type) const;

  /// As send_blob, or says where the store itself has it (307), whether or not it is there.
  void send_blob_or_url(const httplib::Request& req, httplib::Response& res, const std::string& key,
                        const char* type) const;

private:
  using reader = std::function<expected<std::size_t>(std::uint64_t offset, std::span<char> into)>;
  static void send(const httplib::Request& req, httplib::Response& res, std::uint64_t size, const char* type,
                   const std::string& version, const reader& read);
  static void send_small(const httplib::Request& req, httplib::Response& res, const std::string& body,
                         const char* type);
  void send_opened(const httplib::Request& req, httplib::Response& res, std::unique_ptr<store::blob_reader> blob,
                   const char* type) const;
  void send_narinfo(const httplib::Request& req, httplib::Response& res, const std::string& key) const;
  void send_attempt(const httplib::Request& req, httplib::Response& res, std::string_view name) const;

  store::blob_store& blobs_;
  std::filesystem::path log_dir_;
  std::string store_dir_;
  store::blob_urls* urls_;
  std::chrono::seconds urls_valid_;
  log_elsewhere elsewhere_;
};

} // namespace coppice::actors
