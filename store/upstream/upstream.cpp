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

upstream_memory::verdict upstream::ask(const nix::store_path& path) {
  using kind = upstream_memory::verdict::kind;
  auto look = [&] { return shared_->with_memory([&](auto& memory, auto now) { return memory.look(path, {}, now); }); };
  auto at = look();
  if (at.is != kind::ask) return at;
  auto asked = std::make_shared<std::promise<void>>();
  find({path}, [asked](const upstream_paths&, bool) { asked->set_value(); });
  asked->get_future().wait(); // the asker bounds how long a cache may take, and answers all when it ends
  at = look();
  if (at.is == kind::ask) at.is = kind::unknown; // it said nothing
  return at;
}

expected<void> upstream::fetch(const nix::store_path& path, local_store& into) {
  using kind = upstream_memory::verdict::kind;
  const auto& o = shared_->options;
  std::string reasons;
  for (std::size_t tries = 0, silences = 0; tries <= o.urls.size();) {
    auto at = ask(path);
    if (shared_->stopping) return fail(ec::shutdown, "the node is stopping");
    if (at.is == kind::unknown && ++silences < o.silences_max) {
      pause_unless(shared_->stopping, o.silence_delay * silences);
      continue;
    }
    if (at.is == kind::unknown) reasons += "; a cache does not answer";
    if (at.is != kind::found) break;
    ++tries;
    auto& base = o.urls[at.cache];
    auto done = unpack(at.what, base, into);
    if (!done && done.error().code == ec::missing) return fail(ec::io, done.error().what); // of the local store
    if (done || !blames_cache(done.error().code)) return done;
    shared_->distrust(at.cache, path, done.error().what);
    reasons += "; " + base + ": " + done.error().what;
  }
  return fail(ec::missing, "no upstream cache gives " + path.to_string(o.trust.store_dir) + reasons);
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
      pause_unless(shared_->stopping, o.resume_delay * cuts);
    }
  });
}

} // namespace coppice::store
