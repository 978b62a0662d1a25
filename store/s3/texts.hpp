#pragma once

#include "messages/errors.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What S3 servers say, and are told, in XML. `bad_message` for what is no such text.
namespace coppice::store::s3 {

/// Why a server refused.
struct refusal {
  std::string code; ///< "NoSuchKey"
  std::string message;
};
/// None if the text is not an Error.
std::optional<refusal> parse_refusal(std::string_view xml);

/// A page of ListObjectsV2 with encoding-type=url.
struct object_page {
  std::vector<std::pair<std::string, std::uint64_t>> objects; ///< key and bytes
  std::string next;                                           ///< continuation token; empty if nothing follows
};
expected<object_page> parse_objects(std::string_view xml);

/// An upload in parts that was neither completed nor aborted.
struct open_upload {
  std::string key;
  std::string id;
  std::string initiated; ///< "2013-05-24T00:00:00.000Z"
  friend bool operator==(const open_upload&, const open_upload&) = default;
};
/// A page of ListMultipartUploads with encoding-type=url.
struct upload_page {
  std::vector<open_upload> uploads;
  bool more = false;
  std::string key_marker, id_marker; ///< of the next page
};
expected<upload_page> parse_uploads(std::string_view xml);

/// The id of an upload that was begun.
expected<std::string> parse_initiated(std::string_view xml);
/// What completes an upload: the ETags of its parts, in order.
std::string print_completion(const std::vector<std::string>& etags);
/// Whether the answer to it, which may be an Error in a 200, says that it was completed.
bool is_completed(std::string_view xml);

} // namespace coppice::store::s3
