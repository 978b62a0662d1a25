#include "store/s3/sigv4.hpp"

#include "nix/hash.hpp"
#include "store/percent.hpp"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <stdexcept>

namespace coppice::store::s3 {

namespace {

constexpr const char* algorithm = "AWS4-HMAC-SHA256";
constexpr std::chrono::seconds valid_max{7 * 24 * 3600};

using digest = std::array<unsigned char, 32>;

digest hmac(std::string_view key, std::string_view text) {
  digest out;
  unsigned size = 0;
  if (!::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()),
              reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data(), &size))
    throw std::runtime_error("libcrypto refuses HMAC-SHA256");
  return out;
}

std::string_view bytes_of(const digest& d) {
  return {reinterpret_cast<const char*>(d.data()), d.size()};
}

std::string hex_of(std::string_view text) {
  return nix::base16_encode(nix::sha256(text));
}

std::string credential_scope(const std::string& date, const scope& s) {
  return date.substr(0, 8) + "/" + s.region + "/" + s.service + "/aws4_request";
}

/// With Host, sorted by name.
name_values signed_headers(const request& r) {
  auto headers = r.headers;
  headers.emplace_back("host", r.host);
  std::sort(headers.begin(), headers.end());
  return headers;
}

std::string names_of(const name_values& headers) {
  std::string names;
  for (const auto& [name, value] : headers)
    names += (names.empty() ? "" : ";") + name;
  return names;
}

} // namespace

std::string amz_date(wall_time now) {
  const std::time_t seconds = now.time_since_epoch().count();
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> text;
  return {text.data(), std::strftime(text.data(), text.size(), "%Y%m%dT%H%M%SZ", &parts)};
}

std::string canonical_query(const name_values& query) {
  name_values encoded;
  for (const auto& [name, value] : query)
    encoded.emplace_back(percent_encoded(name), percent_encoded(value));
  std::sort(encoded.begin(), encoded.end());
  std::string text;
  for (const auto& [name, value] : encoded)
    (text += text.empty() ? "" : "&") += name + "=" + value;
  return text;
}

std::string signature(const request& r, const std::string& secret_key, const std::string& date, const scope& s) {
  const auto headers = signed_headers(r);
  auto canonical = r.method + "\n" + r.path + "\n" + canonical_query(r.query) + "\n";
  for (const auto& [name, value] : headers)
    canonical += name + ":" + value + "\n";
  canonical += "\n" + names_of(headers) + "\n" + r.payload_hash;
  const auto to_sign =
      std::string{algorithm} + "\n" + date + "\n" + credential_scope(date, s) + "\n" + hex_of(canonical);
  auto key = hmac("AWS4" + secret_key, date.substr(0, 8));
  for (const std::string_view part :
       {std::string_view{s.region}, std::string_view{s.service}, std::string_view{"aws4_request"}})
    key = hmac(bytes_of(key), part);
  return nix::base16_encode(hmac(bytes_of(key), to_sign));
}

std::vector<std::string> sign(request r, const credentials& with, wall_time now, const scope& s) {
  const auto date = amz_date(now);
  r.headers.emplace_back("x-amz-date", date);
  r.headers.emplace_back("x-amz-content-sha256", r.payload_hash);
  if (!with.session_token.empty()) r.headers.emplace_back("x-amz-security-token", with.session_token);
  std::vector<std::string> lines;
  for (const auto& [name, value] : r.headers)
    lines.push_back(name + ": " + value);
  lines.push_back(std::string{"Authorization: "} + algorithm + " Credential=" + with.access_key + "/" +
                  credential_scope(date, s) + ",SignedHeaders=" + names_of(signed_headers(r)) +
                  ",Signature=" + signature(r, with.secret_key, date, s));
  return lines;
}

std::string presign(request r, const credentials& with, wall_time now, const scope& s, std::chrono::seconds valid) {
  const auto date = amz_date(now);
  r.payload_hash = unsigned_payload;
  r.query.emplace_back("X-Amz-Algorithm", algorithm);
  r.query.emplace_back("X-Amz-Credential", with.access_key + "/" + credential_scope(date, s));
  r.query.emplace_back("X-Amz-Date", date);
  r.query.emplace_back("X-Amz-Expires", std::to_string(std::min(valid, valid_max).count()));
  r.query.emplace_back("X-Amz-SignedHeaders", names_of(signed_headers(r)));
  if (!with.session_token.empty()) r.query.emplace_back("X-Amz-Security-Token", with.session_token);
  return canonical_query(r.query) + "&X-Amz-Signature=" + signature(r, with.secret_key, date, s);
}

} // namespace coppice::store::s3
