#include "store/s3/credentials.hpp"

#include "nix/error.hpp"
#include "runtime/curve.hpp"
#include "store/files.hpp"

namespace coppice::store::s3 {

namespace {

constexpr std::uint64_t file_bytes_max = 1 << 20;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blank = " \t\r";
  const auto first = text.find_first_not_of(blank);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(blank) - first + 1);
}

std::string text_of(const char* value) {
  return value ? value : "";
}

} // namespace

expected<credentials> parse_credentials(std::string_view text, const std::string& profile) {
  credentials found;
  bool inside = false, seen = false;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line.front() == '[') {
      inside = line.back() == ']' && trimmed(line.substr(1, line.size() - 2)) == profile;
      seen = seen || inside;
      continue;
    }
    const auto equals = line.find('=');
    if (!inside || equals == line.npos) continue;
    const auto name = trimmed(line.substr(0, equals));
    const auto value = std::string{trimmed(line.substr(equals + 1))};
    if (name == "aws_access_key_id") found.access_key = value;
    if (name == "aws_secret_access_key") found.secret_key = value;
    if (name == "aws_session_token") found.session_token = value;
  }
  if (!seen) return fail(ec::invalid, "there is no profile [" + profile + "]");
  if (found.access_key.empty()) return fail(ec::invalid, "profile [" + profile + "] has no aws_access_key_id");
  if (found.secret_key.empty()) return fail(ec::invalid, "profile [" + profile + "] has no aws_secret_access_key");
  return found;
}

expected<credentials> find_credentials(const credentials_place& place, const environment& env) {
  auto file = place.file;
  if (file.empty()) {
    credentials found{text_of(env("AWS_ACCESS_KEY_ID")), text_of(env("AWS_SECRET_ACCESS_KEY")),
                      text_of(env("AWS_SESSION_TOKEN"))};
    if (!found.access_key.empty() && !found.secret_key.empty()) return found;
    if (!found.access_key.empty() || !found.secret_key.empty())
      return fail(ec::invalid, "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set");
    file = text_of(env("AWS_SHARED_CREDENTIALS_FILE"));
    if (file.empty() && env("HOME")) file = std::filesystem::path{env("HOME")} / ".aws/credentials";
  }
  if (file.empty()) return fail(ec::invalid, "no S3 credentials: neither AWS_ACCESS_KEY_ID nor a file is named");
  const auto text = read_file(file, file_bytes_max);
  if (!text && place.file.empty() && text.error().code == ec::missing)
    return fail(ec::invalid, "no S3 credentials: AWS_ACCESS_KEY_ID is not set, and there is no " + file.string());
  if (!text) return fail(text.error().code, "S3 credentials: " + text.error().what);
  if (auto own = rt::require_private(file); !own) return tl::unexpected(own.error());
  auto found = parse_credentials(*text, place.profile);
  if (!found) return fail(found.error().code, "S3 credentials in " + file.string() + ": " + found.error().what);
  return found;
}

expected<credentials> credentials_box::get(const std::optional<credentials>& refused) {
  std::lock_guard lock{mutex_};
  if (!held_ || held_ == refused) {
    auto found = find_();
    if (!found) return found;
    held_ = std::move(*found);
  }
  return *held_;
}

} // namespace coppice::store::s3
