#include "store/http_blob_store.hpp"

#include "nix/hash.hpp"
#include "store/percent.hpp"
#include "store/spool_file.hpp"

#include <algorithm>
#include <charconv>
#include <mutex>

namespace coppice::store {

namespace {

constexpr std::size_t list_block_bytes = 64 * 1024;
constexpr std::size_t list_line_bytes_max = blob_key_bytes_max + 32;

using exchange = std::unique_ptr<http_exchange>;

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (e != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// What a refusal means, as the server maps it.
ec code_of(long status) {
  switch (status) {
  case 400: return ec::corrupt; // the body broke off or is not what its digest says
  case 401:
  case 403: return ec::forbidden;
  case 404: return ec::missing;
  case 409:
  case 412:
  case 416: return ec::conflict;
  case 413: return ec::limit_exceeded;
  case 415:
  case 422: return ec::invalid;
  case 500: return ec::io;
  case 507: return ec::storage_full;
  default: return ec::unavailable;
  }
}

/// What one request is but for where it goes and by whose leave.
struct call {
  std::string method;
  std::string path; ///< below the base URL
  std::vector<std::string> headers = {};
  std::optional<http_request::body> sends = {};
};

std::string path_of(const std::string& key) {
  return "/blobs/" + percent_encoded(key, "/");
}

/// The node on the other side.
class hub {
public:
  explicit hub(http_blob_options options)
      : options_(std::move(options)), connections_(options_.limits.connections_idle_max) {}

  const http_blob_options::bounds& limits() const { return options_.limits; }
  const std::filesystem::path& scratch_dir() const { return options_.scratch_dir; }
  const std::atomic<bool>& stop() const { return *options_.stop; }
  void pause(unsigned times) const { pause_unless(*options_.stop, options_.limits.retry_delay * times); }

  /// Asks once, with another ticket if the one that we had is refused; the answer's head is here.
  expected<exchange> once(const call& c) {
    std::string refused;
    for (bool fresh = false;; fresh = true) {
      if (*options_.stop) return fail(ec::shutdown, c.method + " " + c.path + ": the node is stopping");
      auto base = options_.url();
      if (!base) return tl::unexpected(base.error());
      auto with = ticket(refused);
      if (!with) return tl::unexpected(with.error());
      http_request request{c.method, *base + c.path, c.headers, c.sends};
      request.headers.push_back("Authorization: Bearer " + *with);
      auto x = std::make_unique<http_exchange>(connections_, std::move(request), options_.limits.patience,
                                               options_.limits.ahead_bytes_max, *options_.stop);
      auto status = x->status();
      if (!status) return tl::unexpected(status.error());
      if (*status == 307 && c.method == "GET") return follow(c, x->header("Location"));
      if ((*status != 401 && *status != 403) || fresh) return x;
      refused = std::move(*with);
    }
  }

  /// Asks until there is an answer that asking again would not change, a few times.
  expected<exchange> ask(const call& c) {
    for (unsigned tries = 1;; ++tries) {
      auto x = once(c);
      const auto status = x ? (*x)->status().value() : 0; // its head is here
      const bool spoilt = c.sends && status == 400;
      const bool again = x ? spoilt || code_of(status) == ec::unavailable : x.error().code == ec::unavailable;
      if (status == 200 || !again || tries >= options_.limits.tries_max) return x;
      pause(tries);
    }
  }

  /// The answer if it is a 200, else its error.
  expected<exchange> demand(const call& c) {
    auto x = ask(c);
    if (x && (*x)->status().value() != 200) return tl::unexpected(refusal(c, **x));
    return x;
  }

  /// The same of a request whose answer says no more than that.
  expected<void> order(const call& c) {
    return demand(c).map([](const exchange& x) { x->words(); }); // read to its end, the connection can be used again
  }

  static error refusal(const call& c, http_exchange& x) {
    const auto status = x.status().value_or(0);
    return {code_of(status),
            c.method + " " + c.path + ": the node of the store answered " + std::to_string(status) + ": " + x.words()};
  }

private:
  /// The same from where the store itself has it: the ticket is not for there.
  expected<exchange> follow(const call& c, const std::string& url) {
    auto x = std::make_unique<http_exchange>(connections_, http_request{c.method, url, c.headers, {}},
                                             options_.limits.patience, options_.limits.ahead_bytes_max, *options_.stop);
    if (auto status = x->status(); !status) return tl::unexpected(status.error());
    return x;
  }
  /// The ticket that all use, or another one if it is the one refused.
  expected<std::string> ticket(const std::string& refused) {
    std::lock_guard lock{mutex_};
    if (ticket_.empty() || ticket_ == refused) {
      auto fresh = options_.ticket(!refused.empty());
      if (!fresh) return fresh;
      ticket_ = std::move(*fresh);
    }
    return ticket_;
  }

  const http_blob_options options_;
  http_connections connections_;
  std::mutex mutex_;
  std::string ticket_;
};

call put_of(const std::string& key, const nix::hash& digest, http_request::body bytes) {
  return {"PUT", path_of(key), {"Content-Digest: sha-256=:" + digest.base64() + ":"}, std::move(bytes)};
}

// The bytes wait in a file of ours until commit() says their key. By then many are known to be in the store, and are
// never sent; a request that breaks off can be repeated; and no connection is held while a builder's output is packed.
class http_writer final : public blob_writer {
public:
  http_writer(std::shared_ptr<hub> to, spool_file spool) : hub_(std::move(to)), spool_(std::move(spool)) {}

  expected<void> write(std::string_view bytes) override {
    hasher_.update(bytes);
    return spool_.write(bytes);
  }
  expected<void> commit(const std::string& key) override {
    if (auto ok = check_blob_key(key); !ok) return ok;
    const auto digest = hasher_.finish();
    const auto read = [this](std::uint64_t offset, std::span<char> into) { return spool_.read(offset, into); };
    return hub_->order(put_of(key, digest, {spool_.size(), read}));
  }

private:
  std::shared_ptr<hub> hub_;
  spool_file spool_;
  nix::hasher hasher_;
};

class http_blob_store final : public blob_store {
public:
  explicit http_blob_store(http_blob_options options) : hub_(std::make_shared<hub>(std::move(options))) {}

  expected<std::unique_ptr<blob_writer>> begin() override {
    return spool_file::create(hub_->scratch_dir()).map([this](spool_file&& spool) -> std::unique_ptr<blob_writer> {
      return std::make_unique<http_writer>(hub_, std::move(spool));
    });
  }

  expected<void> put(const std::string& key, std::string_view bytes) override {
    if (auto ok = check_blob_key(key); !ok) return ok;
    const auto read = [bytes](std::uint64_t offset, std::span<char> into) -> expected<std::size_t> {
      return bytes.copy(into.data(), into.size(), static_cast<std::size_t>(offset));
    };
    return hub_->order(put_of(key, nix::hash_of(nix::hash_algo::sha256, bytes), {bytes.size(), read}));
  }

  // One after the other over one connection: what is put in thousands is put by the node that has the store.
  expected<void> put_all(const std::vector<std::pair<std::string, std::string>>& blobs) override {
    for (const auto& [key, bytes] : blobs)
      if (auto done = put(key, bytes); !done) return done;
    return {};
  }

  expected<std::unique_ptr<blob_reader>> open(const std::string& key) override {
    if (auto ok = check_blob_key(key); !ok) return tl::unexpected(ok.error());
    auto x = hub_->demand({"GET", path_of(key)});
    if (!x) return tl::unexpected(x.error());
    const auto size = number((*x)->header("Content-Length"));
    if (!size) return fail(ec::bad_message, "the node of the store does not tell the size of blob " + key);
    const auto again = [hub = hub_,
                        path = path_of(key)](const std::vector<std::string>& headers) -> expected<exchange> {
      const call c{"GET", path, headers};
      auto more = hub->once(c);
      if (more && (*more)->status().value() != 206) return tl::unexpected(hub::refusal(c, **more));
      return more;
    };
    return std::make_unique<resumable_reader>(key, std::move(*x), *size, again, hub_->limits(), hub_->stop());
  }

  expected<std::optional<std::uint64_t>> stat(const std::string& key) override {
    if (auto ok = check_blob_key(key); !ok) return tl::unexpected(ok.error());
    auto x = hub_->demand({"HEAD", path_of(key)});
    if (!x && x.error().code == ec::missing) return std::nullopt;
    if (!x) return tl::unexpected(x.error());
    const auto size = number((*x)->header("Content-Length"));
    if (!size) return fail(ec::bad_message, "the node of the store does not tell the size of blob " + key);
    return size;
  }

  expected<void> remove(const std::string& key) override {
    if (auto ok = check_blob_key(key); !ok) return ok;
    return hub_->order({"DELETE", path_of(key)});
  }

  expected<void> list(std::string_view prefix,
                      const std::function<bool(const std::string& key, std::uint64_t bytes)>& each) override {
    auto x = hub_->demand({"GET", "/blobs?prefix=" + percent_encoded(prefix, "/")});
    if (!x) return tl::unexpected(x.error());
    std::string held, block(list_block_bytes, '\0');
    while (true) {
      const auto got = (*x)->read(block);
      if (!got) return tl::unexpected(got.error());
      held.append(block, 0, *got);
      for (auto end = held.find('\n'); end != held.npos; end = held.find('\n')) {
        const auto line = held.substr(0, end);
        held.erase(0, end + 1);
        const auto space = std::min(line.find(' '), line.size());
        const auto bytes = number(std::string_view{line}.substr(0, space));
        const auto key = line.substr(std::min(space + 1, line.size()));
        if (!bytes || !key.starts_with(prefix) || !check_blob_key(key)) return not_a_listing();
        if (!each(key, *bytes)) return {};
      }
      if (held.size() > list_line_bytes_max || (*got == 0 && !held.empty())) return not_a_listing();
      if (*got == 0) return {};
    }
  }

private:
  static tl::unexpected<error> not_a_listing() {
    return fail(ec::bad_message, "the node of the store sends no listing of blobs");
  }

  std::shared_ptr<hub> hub_;
};

} // namespace

expected<std::unique_ptr<blob_store>> open_http_blob_store(http_blob_options options) {
  if (auto made = spool_file::prepare(options.scratch_dir); !made) return tl::unexpected(made.error());
  return std::make_unique<http_blob_store>(std::move(options));
}

} // namespace coppice::store
