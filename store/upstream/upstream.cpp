#include "store/upstream/upstream.hpp"

#include "store/compression.hpp"
#include "store/upstream/asker.hpp"

#include <algorithm>
#include <future>

namespace coppice::store {

namespace {

/// What a NAR may take when compressed: the worst that compressors do to random bytes, and more.
std::uint64_t compressed_bytes_max(std::uint64_t nar_size) {
  return nar_size + nar_size / 8 + (1 << 20);
}

/// Faults of what a cache gave, not of this machine.
bool blames_cache(ec code) {
  return code == ec::corrupt || code == ec::limit_exceeded || code == ec::unavailable || code == ec::not_found;
}

} // namespace

upstream::upstream(upstream_options options, const rt::clock& clock)
    : shared_(std::make_shared<shared>(std::move(options), clock)), asker_(std::make_unique<asker>(shared_)) {}

upstream::~upstream() {
  stop();
}

void upstream::stop() {
  shared_->stopping = true;
  asker_->wake();
}

void upstream::find(std::vector<nix::store_path> paths, answer done) {
  asker_->ask(std::move(paths), std::move(done));
}

expected<void> upstream::fetch(const nix::store_path& path, local_store& into) {
  using kind = upstream_memory::verdict::kind;
  std::string reasons;
  for (std::size_t tries = 0; tries <= shared_->options.urls.size(); ++tries) {
    auto look = [&] {
      return shared_->with_memory([&](auto& memory, auto now) { return memory.look(path, {}, now); });
    };
    auto at = look();
    if (at.is == kind::ask) {
      auto asked = std::make_shared<std::promise<void>>();
      find({path}, [asked](const upstream_paths&, bool) { asked->set_value(); });
      asked->get_future().wait();
      at = look();
    }
    if (shared_->stopping) return fail(ec::shutdown, "the node is stopping");
    if (at.is != kind::found) break;
    auto& base = shared_->options.urls[at.cache];
    auto done = unpack(at.what, base, into);
    if (done || !blames_cache(done.error().code)) return done;
    shared_->distrust(at.cache, path, done.error().what);
    reasons += "; " + base + ": " + done.error().what;
  }
  return fail(ec::missing, "no upstream cache gives " + path.to_string(shared_->options.trust.store_dir) + reasons);
}

expected<void> upstream::unpack(const upstream_path& from, const std::string& base, local_store& into) {
  const auto& o = shared_->options;
  const auto url = base + "/" + from.url;
  return into.add_from_nar(from.info, [&](const byte_sink& nar) -> expected<void> {
    decompress_limits limits;
    limits.bytes_max = from.info.nar_size;
    decompressor plain{nar, limits};
    std::uint64_t got = 0, had = 0;
    const auto take = [&](std::string_view bytes) -> expected<void> {
      got += bytes.size();
      if (got > compressed_bytes_max(from.info.nar_size)) return fail(ec::corrupt, url + " does not end");
      return plain.write(bytes);
    };
    for (unsigned cuts = 0, barren = 0;;) {
      const auto status = http_get(url, got, take, {.silence_max = o.silence_max}, shared_->stopping);
      if (status && (*status == 200 || *status == 206)) return plain.finish();
      if (status && *status < 500 && *status != 429)
        return fail(ec::not_found, url + ": HTTP status " + std::to_string(*status));
      if (!status && status.error().code != ec::unavailable) return tl::unexpected(status.error());
      barren = got == had ? barren + 1 : 0;
      had = got;
      if (++cuts > o.cuts_max || barren > o.barren_max)
        return status ? fail(ec::unavailable, url + ": HTTP status " + std::to_string(*status))
                      : tl::unexpected(status.error());
      for (auto left = o.resume_delay * cuts; left.count() > 0 && !shared_->stopping; left -= o.resume_delay)
        std::this_thread::sleep_for(o.resume_delay);
    }
  });
}

} // namespace coppice::store
