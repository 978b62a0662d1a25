#include "store/s3/bucket.hpp"

#include "nix/hash.hpp"
#include "store/percent.hpp"
#include "store/s3/texts.hpp"

#include <algorithm>
#include <map>

namespace coppice::store::s3 {

namespace {

constexpr std::size_t refusal_bytes_max = 64 * 1024;

bool is_good(long status) {
  return status >= 200 && status < 300;
}

/// What codes mean whose status would say something else, or too little.
const std::map<std::string, ec, std::less<>>& meanings() {
  static const std::map<std::string, ec, std::less<>> of{
      {"NoSuchKey", ec::missing},
      {"NoSuchBucket", ec::not_found},
      {"NoSuchUpload", ec::not_found},
      {"QuotaExceeded", ec::storage_full},
      {"EntityTooLarge", ec::limit_exceeded},
      {"SlowDown", ec::unavailable},
      {"RequestTimeout", ec::unavailable},
      {"OperationAborted", ec::unavailable},
      {"ConditionalRequestConflict", ec::unavailable},
      {"BadDigest", ec::corrupt},
      {"InvalidDigest", ec::corrupt},
      {"IncompleteBody", ec::corrupt},
      {"XAmzContentSHA256Mismatch", ec::corrupt},
      {"AuthorizationHeaderMalformed", ec::invalid},
      {"PermanentRedirect", ec::invalid},
      {"NotImplemented", ec::unsupported},
  };
  return of;
}

ec code_of(long status, std::string_view code) {
  if (const auto known = meanings().find(code); known != meanings().end()) return known->second;
  switch (status) {
  case 401:
  case 403: return ec::forbidden;
  case 404: return ec::missing;
  case 409:
  case 412:
  case 416: return ec::conflict;
  case 413: return ec::limit_exceeded;
  case 501: return ec::unsupported;
  case 507: return ec::storage_full;
  case 408:
  case 429: return ec::unavailable;
  default: return status >= 500 ? ec::unavailable : ec::invalid;
  }
}

bool passes(ec code) {
  return code == ec::unavailable || code == ec::corrupt;
}

/// The rest of the answer, but no more than that of it.
expected<std::string> read_text(http_exchange& x, std::size_t bytes_max) {
  std::string text, block(64 * 1024, '\0');
  while (text.size() <= bytes_max) {
    const auto got = x.read(block);
    if (!got) return tl::unexpected(got.error());
    if (*got == 0) return text;
    text.append(block, 0, *got);
  }
  return fail(ec::bad_message, "the S3 server sends more than " + std::to_string(bytes_max) + " bytes of text");
}

} // namespace

http_request::body body_of(std::string_view bytes) {
  return {bytes.size(), [bytes](std::uint64_t offset, std::span<char> into) -> expected<std::size_t> {
            return bytes.copy(into.data(), into.size(), static_cast<std::size_t>(offset));
          }};
}

std::string payload_hash(std::string_view bytes) {
  return nix::base16_encode(nix::sha256(bytes));
}

expected<void> check_place(const bucket_place& place) {
  const auto wrong = [&](const std::string& what) {
    return fail(ec::invalid, "S3 endpoint '" + place.endpoint + "' " + what);
  };
  const auto scheme_end = place.endpoint.find("://");
  if (!place.endpoint.starts_with("http://") && !place.endpoint.starts_with("https://"))
    return wrong("is neither http://HOST[:PORT] nor https://HOST[:PORT]");
  const auto host = place.endpoint.substr(scheme_end + 3);
  if (host.empty() || host.find_first_of("/?#@ ") != host.npos)
    return wrong("is more, or less, than a host and a port");
  const auto good = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.'; };
  if (place.name.size() < 3 || place.name.size() > 63 || !std::all_of(place.name.begin(), place.name.end(), good) ||
      place.name.front() == '.' || place.name.front() == '-')
    return fail(ec::invalid, "'" + place.name + "' is no name of an S3 bucket: 3 to 63 of a-z, 0-9, '-' and '.'");
  if (place.region.empty()) return fail(ec::invalid, "an S3 region is needed; 'us-east-1' does where there are none");
  return {};
}

bucket::bucket(bucket_place place, std::function<expected<credentials>()> find, const bucket_bounds& bounds,
               const rt::clock& clock, const std::atomic<bool>& stop)
    : place_(std::move(place))
    , bounds_(bounds)
    , clock_(clock)
    , stop_(stop)
    , connections_(bounds.connections_idle_max)
    , credentials_(std::move(find)) {
  const auto host_at = place_.endpoint.find("://") + 3;
  scheme_ = place_.endpoint.substr(0, host_at);
  host_ = place_.endpoint.substr(host_at);
  // clients leave the scheme's own port out of the Host header, and that is signed
  const std::string_view own = scheme_ == "https://" ? ":443" : ":80";
  if (host_.ends_with(own)) host_.resize(host_.size() - own.size());
  if (place_.virtual_host) host_ = place_.name + "." + host_;
}

std::string bucket::where() const {
  return "bucket " + place_.name + " at " + place_.endpoint;
}

wall_time bucket::now() const {
  return std::chrono::floor<std::chrono::seconds>(clock_.wall_now());
}

request bucket::to_sign(const bucket_call& c) const {
  request r{c.method, host_, "/", c.query, c.headers, c.body ? c.payload_hash : payload_hash("")};
  if (!place_.virtual_host) r.path += place_.name + (c.key.empty() ? "" : "/");
  r.path += percent_encoded(c.key, "/");
  return r;
}

expected<bucket::exchange> bucket::once(const bucket_call& c) {
  std::optional<credentials> refused;
  for (;;) {
    if (stop_) return fail(ec::shutdown, c.method + " " + c.key + ": the node is stopping");
    auto with = credentials_.get(refused);
    if (!with) return tl::unexpected(with.error());
    auto r = to_sign(c);
    auto url = scheme_ + r.host + r.path;
    if (!r.query.empty()) url += "?" + canonical_query(r.query);
    auto headers = sign(std::move(r), *with, now(), {place_.region});
    headers.insert(headers.end(), c.unsigned_headers.begin(), c.unsigned_headers.end());
    if (c.body && c.method == "POST") headers.emplace_back("Content-Type: application/xml");
    auto x = std::make_unique<http_exchange>(connections_,
                                             http_request{c.method, std::move(url), std::move(headers), c.body},
                                             bounds_.patience, bounds_.ahead_bytes_max, stop_);
    const auto status = x->status();
    if (!status) return tl::unexpected(status.error());
    if (*status != 403) return x;
    if (const auto others = credentials_.get(*with); !others || *others == *with) return x;
    refused = std::move(*with);
  }
}

error bucket::refusal_of(const bucket_call& c, http_exchange& x) const {
  const auto status = x.status().value_or(0);
  const auto told = read_text(x, refusal_bytes_max).map(parse_refusal).value_or(std::nullopt);
  auto what = c.method + " " + (c.key.empty() ? "of the bucket" : c.key) + " in " + where() + ": the server answered " +
              std::to_string(status);
  if (told) what += " " + told->code + (told->message.empty() ? "" : ": " + told->message);
  const auto code = told ? told->code : "";
  if (code == "RequestTimeTooSkewed") what += " (this machine's clock and the server's differ)";
  if (status == 301 || status == 307) what += " (another region or endpoint has the bucket)";
  return {code_of(status, code), std::move(what)};
}

expected<bucket::exchange> bucket::demand(const bucket_call& c) {
  for (unsigned tries = 1;; ++tries) {
    auto x = once(c);
    if (x && is_good((*x)->status().value())) return x;
    auto why = x ? refusal_of(c, **x) : x.error();
    x = fail(why.code, why.what); // its connection is free for the next try
    if (!passes(why.code) || tries >= bounds_.tries_max || stop_) return tl::unexpected(std::move(why));
    pause_unless(stop_, bounds_.retry_delay * (1 << (tries - 1)));
  }
}

expected<std::string> bucket::text(const bucket_call& c) {
  auto x = demand(c);
  if (!x) return tl::unexpected(x.error());
  return rest_of(**x);
}

expected<std::string> bucket::rest_of(http_exchange& x) const {
  return read_text(x, bounds_.answer_bytes_max);
}

expected<std::string> bucket::presigned(const std::string& key, std::chrono::seconds valid) {
  const auto with = credentials_.get();
  if (!with) return tl::unexpected(with.error());
  auto r = to_sign({"GET", key});
  const auto base = scheme_ + r.host + r.path;
  return base + "?" + presign(std::move(r), *with, now(), {place_.region}, valid);
}

} // namespace coppice::store::s3
