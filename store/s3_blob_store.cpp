#include "store/s3_blob_store.hpp"

#include "store/claim.hpp"
#include "store/s3/texts.hpp"

#include <charconv>

namespace coppice::store {

namespace {

s3::bucket_call put_of(const std::string& key, http_request::body body, std::string hash) {
  return {"PUT", key, {}, {{s3::sha256_header, hash}}, std::move(body), hash};
}

expected<std::uint64_t> size_of(const std::string& key, const http_exchange& x) {
  const auto text = x.header("Content-Length");
  std::uint64_t size = 0;
  const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (e == std::errc{} && end == text.data() + text.size()) return size;
  return fail(ec::bad_message, "the S3 server does not tell the size of " + key);
}

} // namespace

struct s3_blob_store::state {
  explicit state(s3_blob_options o)
      : options(std::move(o))
      , bucket(
            options.place, [this] { return s3::find_credentials(options.credentials, options.environment); },
            options.limits, *options.clock, *options.stop) {}

  /// The same of a request whose answer says no more than that.
  expected<void> order(const s3::bucket_call& c) {
    return bucket.demand(c).map([](const auto& x) { x->words(); }); // read to its end, the connection can be used again
  }
  expected<std::optional<std::uint64_t>> stat(const std::string& key);

  const s3_blob_options options;
  s3::bucket bucket;
  std::unique_ptr<s3::upload_journal> journal;
};

expected<std::optional<std::uint64_t>> s3_blob_store::state::stat(const std::string& key) {
  const auto x = bucket.demand({"HEAD", key});
  if (!x && x.error().code == ec::missing) return std::nullopt;
  if (!x) return tl::unexpected(x.error());
  return size_of(key, **x).map([](std::uint64_t size) { return std::optional{size}; });
}

namespace {

// The bytes wait in a file of ours until commit() says their key: S3 wants to know it, and their hash, before the first
// of them. By then many are known to be in the store, and are never sent.
template <class State>
class s3_writer final : public blob_writer {
public:
  s3_writer(std::shared_ptr<State> to, spool_file spool) : to_(std::move(to)), spool_(std::move(spool)) {}

  expected<void> write(std::string_view bytes) override {
    hasher_.update(bytes);
    return spool_.write(bytes);
  }

  expected<void> commit(const std::string& key) override {
    if (auto ok = check_blob_key(key); !ok) return ok;
    const auto digest = hasher_.finish();
    const auto& parts = to_->options.limits.parts;
    const auto read = [this](std::uint64_t offset, std::span<char> into) { return spool_.read(offset, into); };
    const auto put = spool_.size() < parts.from_bytes
                         ? to_->order(put_of(key, {spool_.size(), read}, digest.base16()))
                         : s3::put_in_parts(to_->bucket, *to_->journal, key, spool_, digest, parts);
    if (!put) return put;
    const auto there = to_->stat(key); // INV-16
    if (!there) return tl::unexpected(there.error());
    if (*there == spool_.size()) return {};
    return fail(ec::corrupt, key + " has " + (*there ? std::to_string(**there) : "no") +
                                 " bytes in the bucket, not the " + std::to_string(spool_.size()) + " that were put");
  }

private:
  const std::shared_ptr<State> to_;
  spool_file spool_;
  nix::hasher hasher_;
};

} // namespace

s3_blob_store::s3_blob_store(std::shared_ptr<state> s) : state_(std::move(s)) {}
s3_blob_store::~s3_blob_store() = default;

expected<std::unique_ptr<s3_blob_store>> s3_blob_store::open_bucket(s3_blob_options options) {
  if (auto sound = s3::check_place(options.place); !sound) return tl::unexpected(sound.error());
  if (auto made = spool_file::prepare(options.scratch_dir); !made) return tl::unexpected(made.error());
  auto journal = s3::upload_journal::open(options.scratch_dir / "uploads");
  if (!journal) return tl::unexpected(journal.error());
  auto made = std::make_shared<state>(std::move(options));
  made->journal = std::move(*journal);
  if (auto found = s3::find_credentials(made->options.credentials, made->options.environment); !found)
    return tl::unexpected(found.error());
  return std::unique_ptr<s3_blob_store>{new s3_blob_store{std::move(made)}};
}

expected<std::unique_ptr<blob_writer>> s3_blob_store::begin() {
  return spool_file::create(state_->options.scratch_dir)
      .map([this](spool_file&& spool) -> std::unique_ptr<blob_writer> {
        return std::make_unique<s3_writer<state>>(state_, std::move(spool));
      });
}

expected<void> s3_blob_store::put(const std::string& key, std::string_view bytes) {
  if (auto ok = check_blob_key(key); !ok) return ok;
  return state_->order(put_of(key, s3::body_of(bytes), s3::payload_hash(bytes)));
}

expected<void> s3_blob_store::put_all(const std::vector<std::pair<std::string, std::string>>& blobs) {
  return s3::on_threads(blobs.size(), state_->options.limits.puts_at_once,
                        [&](std::size_t i) { return put(blobs[i].first, blobs[i].second); });
}

expected<std::unique_ptr<blob_reader>> s3_blob_store::open(const std::string& key) {
  if (auto ok = check_blob_key(key); !ok) return tl::unexpected(ok.error());
  auto x = state_->bucket.demand({"GET", key});
  if (!x) return tl::unexpected(x.error());
  const auto size = size_of(key, **x);
  if (!size) return tl::unexpected(size.error());
  const auto again = [s = state_, key](const std::vector<std::string>& headers) -> expected<s3::bucket::exchange> {
    s3::bucket_call c{"GET", key};
    c.unsigned_headers = headers;
    auto more = s->bucket.once(c);
    if (more && (*more)->status().value() != 206) return tl::unexpected(s->bucket.refusal_of(c, **more));
    return more;
  };
  return std::make_unique<resumable_reader>(key, std::move(*x), *size, again, state_->options.limits,
                                            *state_->options.stop);
}

expected<std::optional<std::uint64_t>> s3_blob_store::stat(const std::string& key) {
  if (auto ok = check_blob_key(key); !ok) return tl::unexpected(ok.error());
  return state_->stat(key);
}

expected<void> s3_blob_store::remove(const std::string& key) {
  if (auto ok = check_blob_key(key); !ok) return ok;
  const auto done = state_->order({"DELETE", key});
  if (!done && done.error().code == ec::missing) return {};
  return done;
}

expected<bool> s3_blob_store::put_new(const std::string& key, std::string_view bytes) {
  if (auto ok = check_blob_key(key); !ok) return tl::unexpected(ok.error());
  auto c = put_of(key, s3::body_of(bytes), s3::payload_hash(bytes));
  c.unsigned_headers = {"If-None-Match: *"};
  const auto done = state_->order(c);
  if (done) return true;
  if (done.error().code == ec::conflict) return false;
  if (done.error().code != ec::unsupported) return tl::unexpected(done.error());
  const auto there = stat(key); // an older server
  if (!there) return tl::unexpected(there.error());
  if (*there) return false;
  return put(key, bytes).map([] { return true; });
}

expected<void> s3_blob_store::claim(std::string_view store_dir) {
  return claim_blobs(*this, store_dir,
                     [this](const std::string& key, std::string_view bytes) { return put_new(key, bytes); });
}

expected<std::string> s3_blob_store::url_of(const std::string& key, std::chrono::seconds valid) {
  if (auto ok = check_blob_key(key); !ok) return tl::unexpected(ok.error());
  return state_->bucket.presigned(key, valid);
}

expected<void> s3_blob_store::list(std::string_view prefix,
                                   const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) {
  std::string next;
  do {
    s3::bucket_call c{"GET",
                      "",
                      {{"list-type", "2"},
                       {"prefix", std::string{prefix}},
                       {"encoding-type", "url"},
                       {"max-keys", std::to_string(state_->options.limits.page_max)}}};
    if (!next.empty()) c.query.emplace_back("continuation-token", next);
    const auto page = state_->bucket.text(c).and_then(s3::parse_objects);
    if (!page) return tl::unexpected(page.error());
    for (const auto& [key, bytes] : page->objects)
      if (check_blob_key(key) && !each(key, bytes)) return {}; // what else is in the bucket is not ours
    if (page->next == next && !next.empty()) return fail(ec::bad_message, "the S3 server lists the same page again");
    next = page->next;
  } while (!next.empty());
  return {};
}

expected<std::size_t> s3_blob_store::sweep(std::chrono::hours age) {
  const auto own = s3::sweep_uploads(state_->bucket, *state_->journal);
  if (!own) return own;
  return s3::sweep_old_uploads(state_->bucket, age).map([&](std::size_t old) { return *own + old; });
}

} // namespace coppice::store
