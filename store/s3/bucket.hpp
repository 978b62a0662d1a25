#pragma once

#include "runtime/clock.hpp"
#include "store/resumable_reader.hpp"
#include "store/s3/credentials.hpp"
#include "store/s3/sigv4.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::store::s3 {

struct bucket_bounds : reading_bounds {
  std::size_t ahead_bytes_max = 1 << 20;    ///< received before somebody reads it
  unsigned tries_max = 4;                   ///< of a request that gets no answer or a 5xx, or was spoilt on the way
  std::size_t connections_idle_max = 16;    ///< kept open for further requests
  std::size_t answer_bytes_max = 16u << 20; ///< of a listing's page
  unsigned page_max = 1000;                 ///< entries of a listing's page
};

struct bucket_place {
  std::string endpoint; ///< "https://s3.example:443", without a path
  std::string name;
  std::string region = "us-east-1";
  bool virtual_host = false; ///< the bucket is named in the host rather than in the path
};

/// Checks it; `invalid` says what is wrong.
expected<void> check_place(const bucket_place& place);

/// A request to the bucket, or to an object in it.
struct bucket_call {
  std::string method;
  std::string key = {}; ///< empty: the bucket itself
  name_values query = {};
  name_values headers = {}; ///< to be signed; names in lower case
  std::optional<http_request::body> body = {};
  std::string payload_hash = {}; ///< of the body: lower-case hex of its sha256
  std::vector<std::string> unsigned_headers = {};
};

/// A bucket of an S3 server: signs, asks, asks again where that may help. Any number of threads at once.
/// Errors: `missing` for no such object, `not_found` for no such bucket or upload, `forbidden`, `conflict` for an unmet
/// condition, `storage_full`, `unavailable` for no answer or one that passes, `corrupt` for what was spoilt on its way
/// again and again, `invalid` for what is wrong with the settings, `shutdown`.
class bucket {
public:
  /// `clock` and `stop` outlive it. The place has passed check_place().
  bucket(bucket_place place, std::function<expected<credentials>()> find, const bucket_bounds& bounds,
         const rt::clock& clock, const std::atomic<bool>& stop);

  using exchange = std::unique_ptr<http_exchange>;
  /// Asks once, with other credentials if there are any and those we had are refused; the answer's head is here.
  expected<exchange> once(const bucket_call& c);
  /// Asks a few times; an answer that is not 2xx is its error.
  expected<exchange> demand(const bucket_call& c);
  /// The same of a request whose answer is a text.
  expected<std::string> text(const bucket_call& c);
  /// The rest of an answer that is a text, of at most `answer_bytes_max`.
  expected<std::string> rest_of(http_exchange& x) const;
  /// The error that an answer means; reads it to its end.
  error refusal_of(const bucket_call& c, http_exchange& x) const;
  /// A URL by which anybody may GET the object for so long, at most a week.
  expected<std::string> presigned(const std::string& key, std::chrono::seconds valid);

  const bucket_bounds& bounds() const { return bounds_; }
  const rt::clock& clock() const { return clock_; }
  const std::atomic<bool>& stop() const { return stop_; }
  /// "bucket NAME at ENDPOINT", for people.
  std::string where() const;

private:
  request to_sign(const bucket_call& c) const;
  wall_time now() const;

  const bucket_place place_;
  const bucket_bounds bounds_;
  const rt::clock& clock_;
  const std::atomic<bool>& stop_;
  std::string scheme_, host_;
  http_connections connections_;
  credentials_box credentials_;
};

/// The bytes as a request's body; they must outlive it.
http_request::body body_of(std::string_view bytes);
/// The payload hash of the bytes.
std::string payload_hash(std::string_view bytes);

} // namespace coppice::store::s3
