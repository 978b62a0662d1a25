#include "actors/deliver/node_blobs.hpp"

#include "actors/deliver/http_answers.hpp"
#include "nix/hash.hpp"
#include "runtime/log.hpp"

#include <httplib.h>

#include <algorithm>
#include <array>

namespace coppice::actors {

namespace {

constexpr std::string_view listing = "/blobs", below = "/blobs/";
constexpr const char* blob_type = "application/octet-stream";
constexpr std::size_t list_piece_bytes = 64 * 1024;
/// Not what caches show: that follows from the ledger alone.
constexpr std::array<std::string_view, 4> writable{"nar/", "closures/", "log/", "attempts/"};

std::string key_of(const httplib::Request& req) {
  return req.path.substr(below.size());
}

expected<void> check_writable(const std::string& key) {
  if (auto sound = store::check_blob_key(key); !sound) return sound;
  if (std::none_of(writable.begin(), writable.end(), [&](auto prefix) { return key.starts_with(prefix); }))
    return fail(ec::forbidden, key + " is not for machines of the farm to write or remove");
  if ((key.starts_with("nar/") || key.starts_with("closures/")) && !store::blob_of_key(key))
    return fail(ec::invalid, key + " does not name a blob by its hash and generation");
  return {};
}

/// Reads "sha-256=:<base64>:" (RFC 9530).
expected<nix::sha256_digest> parse_digest(std::string_view header) {
  constexpr std::string_view begin = "sha-256=:";
  if (header.size() > begin.size() && header.starts_with(begin) && header.ends_with(':'))
    if (auto bytes = nix::base64_decode(header.substr(begin.size(), header.size() - begin.size() - 1)))
      if (nix::sha256_digest digest; bytes->size() == digest.size()) {
        std::copy(bytes->begin(), bytes->end(), digest.begin());
        return digest;
      }
  return fail(ec::bad_message, "a Content-Digest of the body, sha-256 alone, is needed");
}

/// What the body of a PUT must hash to.
expected<nix::sha256_digest> wanted_digest(const httplib::Request& req) {
  const auto key = key_of(req);
  if (auto allowed = check_writable(key); !allowed) return tl::unexpected(allowed.error());
  auto digest = parse_digest(req.get_header_value("Content-Digest"));
  if (!digest) return digest;
  if (auto id = store::blob_of_key(key); id && id->bytes != *digest)
    return fail(ec::invalid, key + " is not the key of what has the sha256 " + nix::base16_encode(*digest));
  return digest;
}

} // namespace

bool node_blobs::serves(const httplib::Request& req) {
  return req.path == listing || req.path.starts_with(below);
}

bool node_blobs::knows(const httplib::Request& req, httplib::Response& res) const {
  const auto who = config_.tickets->find(ticket_of(req), config_.clock->now());
  if (!who)
    respond_unknown(res, "a ticket that is not over is needed");
  else if (who->role != role::node) // INV-15
    respond(res, 403, "the key " + who->name + " is not a machine's");
  return who && who->role == role::node;
}

void node_blobs::get(const httplib::Request& req, httplib::Response& res) const {
  if (!knows(req, res)) return;
  if (req.path == listing) return list(req, res);
  config_.pages->send_blob_or_url(req, res, key_of(req), blob_type);
}

// A listing may be long: it is told while the store is walked, and one that fails is cut off without its end.
void node_blobs::list(const httplib::Request& req, httplib::Response& res) const {
  const auto prefix = req.get_param_value("prefix");
  if (auto sound = store::check_blob_key(prefix + "x"); !sound) return respond_with(res, sound.error());
  res.status = 200;
  res.set_chunked_content_provider("text/plain; charset=utf-8", [this, prefix](std::size_t, httplib::DataSink& sink) {
    std::string lines;
    bool heard = true;
    const auto told = config_.blobs->list(prefix, [&](const std::string& key, std::uint64_t bytes) {
      lines += std::to_string(bytes) + " " + key + "\n";
      if (lines.size() < list_piece_bytes) return true;
      heard = sink.write(lines.data(), lines.size());
      lines.clear();
      return heard;
    });
    if (!told) rt::log::error("CACHE_SERVER", "cannot list prefix={} error={}", prefix, to_string(told.error()));
    if (!told || !heard || (!lines.empty() && !sink.write(lines.data(), lines.size()))) return false;
    sink.done();
    return true;
  });
}

bool node_blobs::admits(const httplib::Request& req, httplib::Response& res) const {
  if (req.path == listing) return respond(res, 404, "nothing can be put here"), false;
  if (!knows(req, res)) return false;
  if (auto digest = wanted_digest(req); !digest)
    respond_with(res, digest.error());
  else if (req.has_header("Content-Encoding"))
    respond(res, 415, "a blob is sent as it is");
  else if (req.has_header("Content-Length") &&
           req.get_header_value<std::uint64_t>("Content-Length") > config_.blob_bytes_max)
    respond(res, 413,
            "the blob is larger than the " + std::to_string(config_.blob_bytes_max) + " bytes that are allowed");
  else
    return true;
  return false;
}

void node_blobs::put(const httplib::Request& req, httplib::Response& res, const body_reader& body) {
  const turn mine{running_};
  if (mine.number > config_.puts_max)
    return respond_with(res, {ec::overloaded, "there are " + std::to_string(config_.puts_max) + " uploads already"});
  auto done = wanted_digest(req).and_then([&](const auto& digest) { return store(key_of(req), digest, body); });
  if (done) return respond(res, 200, "stored");
  rt::log::info("CACHE_SERVER", "blob refused path={} error={}", req.path, to_string(done.error()));
  respond_with(res, done.error());
}

expected<void> node_blobs::store(const std::string& key, const nix::sha256_digest& digest,
                                 const body_reader& body) const {
  auto writer = config_.blobs->begin();
  if (!writer) return tl::unexpected(writer.error());
  nix::hasher hasher;
  auto taken = take_body(body, config_.blob_bytes_max, [&](std::string_view bytes) {
    hasher.update(bytes);
    return (*writer)->write(bytes);
  });
  if (!taken) return taken;
  const auto found = hasher.finish();
  if (found.sha256() != digest)
    return fail(ec::corrupt, "what came has the sha256 " + found.base16() + ", not " + nix::base16_encode(digest));
  return (*writer)->commit(key);
}

void node_blobs::remove(const httplib::Request& req, httplib::Response& res) {
  if (!req.path.starts_with(below)) return respond(res, 405, "nothing can be removed here");
  if (!knows(req, res)) return;
  const turn mine{running_};
  if (mine.number > config_.puts_max)
    return respond_with(res, {ec::overloaded, "there are " + std::to_string(config_.puts_max) + " uploads already"});
  const auto key = key_of(req);
  const auto done = check_writable(key).and_then([&] { return remove_bad(key); });
  if (!done) return respond_with(res, done.error());
  rt::log::info("CACHE_SERVER", "blob removed key={}", key);
  respond(res, 200, "removed");
}

// A machine asks for this that read other bytes than it should. If they are good here, they were spoilt on the way or
// in that machine, and nobody else is to lose them for it.
expected<void> node_blobs::remove_bad(const std::string& key) const {
  if (auto id = store::blob_of_key(key)) {
    const auto size = config_.blobs->stat(key);
    if (!size) return tl::unexpected(size.error());
    if (!*size) return {};
    const auto sound = store::verify_blob(*config_.blobs, key, *id, **size);
    if (sound) return fail(ec::conflict, key + " is as it should be, and stays");
    if (sound.error().code != ec::corrupt && sound.error().code != ec::missing) return sound;
  }
  return config_.blobs->remove(key);
}

} // namespace coppice::actors
