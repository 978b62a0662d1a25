#pragma once

#include "store/s3/credentials.hpp"

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// AWS's signature, version 4, as S3 servers want it: the path is encoded once and not normalised. Pure.
namespace coppice::store::s3 {

using name_values = std::vector<std::pair<std::string, std::string>>;
using wall_time = std::chrono::sys_seconds;

/// The payload hash of requests whose body is not signed.
inline constexpr std::string_view unsigned_payload = "UNSIGNED-PAYLOAD";

/// A request as it is signed.
struct request {
  std::string method;
  std::string host;              ///< as in its Host header
  std::string path;              ///< percent-encoded, from its '/' on
  name_values query = {};        ///< plain: encoded and sorted here
  name_values headers = {};      ///< to be signed and sent, beside Host; names in lower case
  std::string payload_hash = {}; ///< lower-case hex of the body's sha256, or unsigned_payload
};

/// For what a signature counts.
struct scope {
  std::string region;
  std::string service = "s3";
};

/// "20130524T000000Z".
std::string amz_date(wall_time now);
/// The query with everything encoded and in the order in which it is signed; "a=&b=1".
std::string canonical_query(const name_values& query);
/// The signature of exactly this request, in lower-case hex.
std::string signature(const request& r, const std::string& secret_key, const std::string& date, const scope& s);
/// The lines of the headers to send with it, Host aside: its own, x-amz-date, x-amz-content-sha256, the session's
/// token, and Authorization.
std::vector<std::string> sign(request r, const credentials& with, wall_time now, const scope& s);
/// The query by which anybody may make this request, without further headers, for so many seconds (at most a week).
std::string presign(request r, const credentials& with, wall_time now, const scope& s, std::chrono::seconds valid);

} // namespace coppice::store::s3
