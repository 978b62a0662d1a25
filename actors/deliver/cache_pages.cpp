#include "actors/deliver/cache_pages.hpp"

#include "actors/deliver/http_server.hpp"
#include "nix/hash.hpp"
#include "runtime/fd.hpp"
#include "runtime/log.hpp"
#include "store/files.hpp"

#include <fcntl.h>
#include <httplib.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

namespace coppice::actors {

namespace {

constexpr std::size_t piece_bytes = 64 * 1024;
constexpr std::uint64_t narinfo_bytes_max = 8 * 1024 * 1024;
constexpr const char* narinfo_type = "text/x-nix-narinfo";
constexpr const char* text_type = "text/plain; charset=utf-8";

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (e != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// The key of the NAR that one of our narinfos names.
std::string nar_of(std::string_view narinfo) {
  constexpr std::string_view url = "\nURL: ";
  const auto at = narinfo.find(url);
  if (at == narinfo.npos) return {};
  const auto begin = at + url.size();
  return std::string{narinfo.substr(begin, narinfo.find('\n', begin) - begin)};
}

void fail_with(httplib::Response& res, const error& e) {
  if (e.code == ec::missing || e.code == ec::invalid) return respond(res, 404, "there is no such thing here");
  rt::log::error("CACHE_SERVER", "cannot serve error={}", to_string(e));
  respond(res, 500, "the store cannot be read");
}

/// The one component behind `directory` in a request's path; empty if it is not of that form.
std::string_view below(std::string_view directory, std::string_view path) {
  if (!path.starts_with(directory)) return {};
  path.remove_prefix(directory.size());
  return path.find('/') == path.npos ? path : std::string_view{};
}

struct attempt_name {
  inhash key;
  fence token;
};

/// Reads "<inhash>-<fence>".
std::optional<attempt_name> parse_attempt(std::string_view name) {
  auto dash = name.find('-');
  if (dash == name.npos) return std::nullopt;
  auto key = inhash::parse(name.substr(0, dash));
  auto token = number(name.substr(dash + 1));
  if (!key || !token || std::to_string(*token) != name.substr(dash + 1)) return std::nullopt;
  return attempt_name{*key, {*token}};
}

} // namespace

byte_range parse_range(std::string_view header, std::uint64_t size) {
  using kind = byte_range::kind;
  const byte_range whole{0, size, kind::whole}, none{0, 0, kind::unsatisfiable};
  constexpr std::string_view unit = "bytes=";
  if (!header.starts_with(unit)) return whole;
  header.remove_prefix(unit.size());
  auto dash = header.find('-');
  if (dash == header.npos) return whole;
  auto before = header.substr(0, dash), after = header.substr(dash + 1);
  auto first = number(before), last = number(after);
  if ((!first && !before.empty()) || (!last && !after.empty()) || (!first && !last)) return whole;
  if (!first) {
    auto length = std::min(*last, size);
    return length ? byte_range{size - length, length, kind::part} : none;
  }
  if (last && *last < *first) return whole;
  if (*first >= size) return none;
  auto end = last ? std::min(*last, size - 1) : size - 1;
  return {*first, end - *first + 1, kind::part};
}

void cache_pages::get(const httplib::Request& req, httplib::Response& res) const {
  std::string_view path = req.path;
  if (path == "/nix-cache-info")
    return send_small(req, res, "StoreDir: " + store_dir_ + "\nWantMassQuery: 1\nPriority: 30\n",
                      "text/x-nix-cache-info");
  if (path.size() == 1 + nix::hash_part_chars + 8 && path.ends_with(".narinfo") &&
      std::all_of(path.begin() + 1, path.end() - 8, nix::is_base32))
    return send_narinfo(req, res, req.path.substr(1));
  if (auto name = below("/nar/", path); !name.empty())
    return send_blob_or_url(req, res, req.path.substr(1), "application/x-nix-nar");
  if (auto name = below("/log/", path); !name.empty() && nix::store_path::from_base_name(name))
    return send_blob(req, res, req.path.substr(1), text_type);
  if (auto name = below("/attempt/", path); !name.empty()) return send_attempt(req, res, name);
  respond(res, 404, "there is no such thing here");
}

void cache_pages::send_small(const httplib::Request& req, httplib::Response& res, const std::string& body,
                             const char* type) {
  res.status = 200;
  if (req.method == "HEAD") {
    res.set_header("Content-Type", type);
    res.set_header("Content-Length", std::to_string(body.size()));
  } else {
    res.set_content(body, type);
  }
}

void cache_pages::send(const httplib::Request& req, httplib::Response& res, std::uint64_t size, const char* type,
                       const std::string& version, const reader& read) {
  const auto etag = version.empty() ? "" : '"' + version + '"';
  if (auto wanted = req.get_header_value("If-Match"); !wanted.empty() && wanted != etag && wanted != "*")
    return respond(res, 412, "there is something else now");
  res.set_header("Accept-Ranges", "bytes");
  if (!etag.empty()) res.set_header("ETag", etag);
  if (req.method == "HEAD") {
    res.status = 200;
    res.set_header("Content-Type", type);
    res.set_header("Content-Length", std::to_string(size));
    return;
  }
  const bool of_this = !req.has_header("If-Range") || (!etag.empty() && req.get_header_value("If-Range") == etag);
  auto range = parse_range(of_this ? req.get_header_value("Range") : "", size);
  if (range.what == byte_range::kind::unsatisfiable) {
    res.set_header("Content-Range", "bytes */" + std::to_string(size));
    return respond(res, 416, "there are no such bytes");
  }
  res.status = 200;
  if (range.what == byte_range::kind::part) {
    res.status = 206;
    res.set_header("Content-Range", "bytes " + std::to_string(range.first) + "-" +
                                        std::to_string(range.first + range.length - 1) + "/" + std::to_string(size));
  }
  if (range.length == 0) return res.set_content("", type);
  res.set_content_provider(range.length, type,
                           [read, range](std::size_t offset, std::size_t length, httplib::DataSink& sink) {
                             std::vector<char> piece(std::min(length, piece_bytes));
                             auto got = read(range.first + offset, piece);
                             // a failure cuts the connection off: the length was promised
                             return got && *got > 0 && sink.write(piece.data(), *got);
                           });
}

void cache_pages::send_narinfo(const httplib::Request& req, httplib::Response& res, const std::string& key) const {
  auto text = store::read_blob(blobs_, key, narinfo_bytes_max);
  if (!text) return fail_with(res, text.error());
  auto nar = blobs_.stat(nar_of(*text));
  if (!nar) return fail_with(res, nar.error());
  if (!*nar) return respond(res, 404, "the store has lost what this narinfo names"); // T17
  send_small(req, res, *text, narinfo_type);
}

void cache_pages::send_blob(const httplib::Request& req, httplib::Response& res, const std::string& key,
                            const char* type) const {
  if (auto sound = store::check_blob_key(key); !sound) return fail_with(res, sound.error());
  auto blob = blobs_.open(key);
  if (!blob) return fail_with(res, blob.error());
  send_opened(req, res, std::move(*blob), type);
}

void cache_pages::send_opened(const httplib::Request& req, httplib::Response& res,
                              std::unique_ptr<store::blob_reader> blob, const char* type) const {
  std::shared_ptr<store::blob_reader> shared = std::move(blob);
  send(req, res, shared->size(), type, shared->version(),
       [shared](std::uint64_t offset, std::span<char> into) { return shared->read(offset, into); });
}

void cache_pages::send_blob_or_url(const httplib::Request& req, httplib::Response& res, const std::string& key,
                                   const char* type) const {
  if (!urls_ || req.method != "GET") return send_blob(req, res, key, type); // a URL is for one method
  const auto url = urls_->url_of(key, urls_valid_);
  if (!url) return fail_with(res, url.error());
  res.status = 307;
  res.set_header("Location", *url);
}

// A log moves from its file into the store when its attempt ends, in this order, so it is looked for in this order. What
// is nowhere here may be in such a file of another machine.
void cache_pages::send_attempt(const httplib::Request& req, httplib::Response& res, std::string_view name) const {
  auto attempt = parse_attempt(name);
  if (!attempt) return respond(res, 404, "there is no such thing here");
  auto file = log_dir_ / (std::string{name} + ".log");
  auto fd = std::make_shared<rt::unique_fd>(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat s {};
  if (*fd && ::fstat(fd->get(), &s) == 0 && S_ISREG(s.st_mode)) {
    res.set_header("X-Coppice-Log", "running");
    return send(req, res, static_cast<std::uint64_t>(s.st_size), text_type, {},
                [fd, file](std::uint64_t offset, std::span<char> into) {
                  return store::read_at(fd->get(), offset, into, file);
                });
  }
  auto blob = blobs_.open(store::attempt_log_key(attempt->key, attempt->token));
  if (!blob && blob.error().code == ec::missing && elsewhere_) return elsewhere_(req, res, attempt->key, attempt->token);
  if (!blob) return fail_with(res, blob.error());
  send_opened(req, res, std::move(*blob), text_type);
  if (res.status < 400 || res.status == 416) res.set_header("X-Coppice-Log", "finished");
}

} // namespace coppice::actors
