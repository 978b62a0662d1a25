#pragma once

#include "messages/errors.hpp"

#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace coppice::store::s3 {

/// What requests are signed with.
struct credentials {
  std::string access_key;
  std::string secret_key;
  std::string session_token; ///< of temporary ones, else empty
  friend bool operator==(const credentials&, const credentials&) = default;
};

/// An environment variable's value, or null.
using environment = std::function<const char*(const char* name)>;

/// Reads the profile's section of a credentials file as AWS's tools have it: `aws_access_key_id`,
/// `aws_secret_access_key` and `aws_session_token`. `invalid` if it has none, or only one of the first two; errors
/// quote no secret.
expected<credentials> parse_credentials(std::string_view text, const std::string& profile);

/// Where credentials come from.
struct credentials_place {
  std::filesystem::path file; ///< empty: the environment's, else AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials
  std::string profile = "default"; ///< in that file
};

/// Those of the place: the file's, which only its owner may read, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
/// AWS_SESSION_TOKEN.
expected<credentials> find_credentials(const credentials_place& place, const environment& env);

/// Credentials that may be exchanged while they are used: found at the first use, and again when they were refused.
/// Any number of threads at once.
class credentials_box {
public:
  explicit credentials_box(std::function<expected<credentials>()> find) : find_(std::move(find)) {}
  /// The credentials; looked for anew if they are still those that were `refused`.
  expected<credentials> get(const std::optional<credentials>& refused = std::nullopt);

private:
  const std::function<expected<credentials>()> find_;
  std::mutex mutex_;
  std::optional<credentials> held_; ///< guarded by mutex_
};

} // namespace coppice::store::s3
