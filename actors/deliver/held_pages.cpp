#include "actors/deliver/held_pages.hpp"

#include "actors/deliver/cache_pages.hpp"
#include "actors/deliver/http_server.hpp"
#include "runtime/log.hpp"
#include "store/held_fetch.hpp"

#include <httplib.h>

#include <algorithm>
#include <optional>

namespace coppice::actors {

namespace {

constexpr const char* nar_type = "application/x-nix-nar";
constexpr std::size_t piece_bytes = 256 * 1024;

/// What is asked for, if it is valid here.
std::optional<path_info> held(const store::local_store& local, std::string_view target) {
  target.remove_prefix(store::held_prefix.size());
  const auto slash = target.find('/');
  if (slash == target.npos) return std::nullopt;
  const auto hash = nar_hash::parse(target.substr(0, slash));
  const auto path = nix::store_path::from_base_name(target.substr(slash + 1));
  if (!hash || !path) return std::nullopt;
  auto info = local.query(*path);
  if (!info || info->nar_hash != *hash) return std::nullopt;
  return info;
}

/// Counts who is being sent to, until the last copy of what it gives is gone.
std::shared_ptr<void> one_more(std::atomic<std::size_t>& n) {
  ++n;
  return {nullptr, [&n](void*) { --n; }};
}

/// Writes a part of a stream to a reader, in pieces that are worth a packet.
class part_writer {
public:
  part_writer(const byte_range& part, httplib::DataSink& sink) : skip_(part.first), left_(part.length), sink_(sink) {
    held_.reserve(piece_bytes);
  }
  expected<void> take(std::string_view bytes) {
    const auto skipped = std::min<std::uint64_t>(skip_, bytes.size());
    skip_ -= skipped;
    bytes.remove_prefix(static_cast<std::size_t>(skipped));
    bytes = bytes.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size())));
    left_ -= bytes.size();
    if (held_.size() + bytes.size() < piece_bytes && left_ > 0) return (void)held_.append(bytes), expected<void>{};
    if (!held_.empty() && !write(held_)) return fail(ec::unavailable, "the reader is gone");
    held_.clear();
    if (!bytes.empty() && !write(bytes)) return fail(ec::unavailable, "the reader is gone");
    return {};
  }
  bool is_done() const { return left_ == 0; }
  bool is_heard() const { return heard_; }

private:
  bool write(std::string_view bytes) { return heard_ = sink_.write(bytes.data(), bytes.size()); }

  std::uint64_t skip_, left_;
  httplib::DataSink& sink_;
  std::string held_;
  bool heard_ = true;
};

/// False if the reader is gone or the tree cannot be read: the length was promised.
bool send_part(const std::filesystem::path& tree, const byte_range& part, httplib::DataSink& sink) {
  part_writer writer{part, sink};
  const auto dumped = store::dump_path(tree, [&](std::string_view bytes) { return writer.take(bytes); });
  if (!dumped && writer.is_heard())
    rt::log::error("CACHE_SERVER", "cannot send what is held here tree={} error={}", tree.string(),
                   to_string(dumped.error()));
  return dumped && writer.is_done();
}

} // namespace

bool held_pages::serves(const httplib::Request& req) {
  return req.path.starts_with(store::held_prefix);
}

void held_pages::get(const httplib::Request& req, httplib::Response& res) const {
  auto mine = one_more(sending_);
  if (sending_ > sends_max_) return respond(res, 503, std::to_string(sends_max_) + " others are being sent to already");
  auto info = local_ ? held(*local_, req.path) : std::nullopt;
  if (!info) return respond(res, 404, "that is not held here");
  auto pin = local_->pin({info->path});
  res.set_header("Accept-Ranges", "bytes");
  res.set_header("ETag", '"' + info->nar_hash.to_string() + '"');
  if (req.method == "HEAD") {
    res.status = 200;
    res.set_header("Content-Type", nar_type);
    res.set_header("Content-Length", std::to_string(info->nar_size));
    return;
  }
  const auto part = parse_range(req.get_header_value("Range"), info->nar_size);
  if (part.what == byte_range::kind::unsatisfiable) {
    res.set_header("Content-Range", "bytes */" + std::to_string(info->nar_size));
    return respond(res, 416, "there are no such bytes");
  }
  res.status = part.what == byte_range::kind::part ? 206 : 200;
  if (res.status == 206)
    res.set_header("Content-Range", "bytes " + std::to_string(part.first) + "-" +
                                        std::to_string(part.first + part.length - 1) + "/" +
                                        std::to_string(info->nar_size));
  res.set_content_provider(
      part.length, nar_type,
      [part, mine, pin, tree = local_->real_path(info->path)](std::size_t, std::size_t, httplib::DataSink& sink) {
        return send_part(tree, part, sink);
      });
}

} // namespace coppice::actors
