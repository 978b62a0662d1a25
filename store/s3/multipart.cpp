#include "store/s3/multipart.hpp"

#include "runtime/log.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <mutex>
#include <thread>

namespace coppice::store::s3 {

namespace {

constexpr std::uint64_t parts_max = 10'000; // S3's own limit
constexpr std::chrono::milliseconds retry_delay_max{5'000};
constexpr std::size_t block_bytes = 256 * 1024;

/// A slice of the file as the body of a request.
struct part {
  std::uint64_t first = 0, size = 0;
};

expected<std::string> hash_of(const spool_file& bytes, part p) {
  nix::hasher hasher;
  std::string block(block_bytes, '\0');
  for (std::uint64_t at = 0; at < p.size;) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(block.size(), p.size - at));
    const auto got = bytes.read(p.first + at, std::span{block}.first(want));
    if (!got) return tl::unexpected(got.error());
    if (*got == 0) return fail(ec::corrupt, "the file of an upload ends at byte " + std::to_string(p.first + at));
    hasher.update(std::string_view{block}.substr(0, *got));
    at += *got;
  }
  return hasher.finish().base16();
}

http_request::body body_of(const spool_file& bytes, part p) {
  return {p.size, [&bytes, p](std::uint64_t offset, std::span<char> into) {
            const auto left = p.size - std::min(offset, p.size);
            return bytes.read(p.first + offset,
                              into.first(static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), left))));
          }};
}

/// Asks until the server answers, for as long as an outage may last.
template <class Ask>
auto through_outages(bucket& to, std::chrono::milliseconds outage_max, const Ask& ask) -> decltype(ask()) {
  auto delay = to.bounds().retry_delay;
  for (const auto since = to.clock().now();;) {
    auto answer = ask();
    if (answer || answer.error().code != ec::unavailable || to.stop()) return answer;
    if (to.clock().now() - since >= outage_max) return answer;
    pause_unless(to.stop(), delay);
    delay = std::min(delay * 2, retry_delay_max);
  }
}

/// One upload in parts, from its beginning to its end.
class part_upload {
public:
  part_upload(bucket& to, const std::string& key, const spool_file& bytes, const nix::hash& sha256,
              const multipart_bounds& bounds)
      : to_(to), key_(key), bytes_(bytes), sha256_(sha256.base16()), bounds_(bounds) {
    const auto least = (bytes.size() + parts_max - 1) / parts_max;
    part_bytes_ = std::max(bounds.part_bytes, least);
    etags_.resize(static_cast<std::size_t>((bytes.size() + part_bytes_ - 1) / part_bytes_));
  }

  expected<open_upload> begin() {
    const bucket_call c{"POST", key_, {{"uploads", ""}}, {{sha256_header, sha256_}}, s3::body_of(""), payload_hash("")};
    return to_.text(c).and_then(parse_initiated).map([&](const std::string& id) { return open_upload{key_, id, ""}; });
  }

  expected<void> put_parts(const std::string& id) {
    return on_threads(etags_.size(), bounds_.parts_at_once, [&](std::size_t i) {
      return through_outages(to_, bounds_.outage_max, [&] { return put_part(id, i); });
    });
  }

  expected<void> complete(const std::string& id) {
    const auto text = print_completion(etags_);
    const bucket_call c{"POST", key_, {{"uploadId", id}}, {}, s3::body_of(text), payload_hash(text)};
    return through_outages(to_, bounds_.outage_max, [&]() -> expected<void> {
      const auto answer = to_.text(c);
      if (answer && is_completed(*answer)) return {};
      if (is_there()) return {}; // it was completed, and we did not hear of it
      if (!answer) return tl::unexpected(answer.error());
      const auto why = parse_refusal(*answer).value_or(refusal{"no answer", ""});
      return fail(ec::unavailable, "the upload of " + key_ + " was not completed: " + why.code + ": " + why.message);
    });
  }

private:
  expected<void> put_part(const std::string& id, std::size_t i) {
    const part p{i * part_bytes_, std::min(part_bytes_, bytes_.size() - i * part_bytes_)};
    const auto hash = hash_of(bytes_, p);
    if (!hash) return tl::unexpected(hash.error());
    const name_values query{{"partNumber", std::to_string(i + 1)}, {"uploadId", id}};
    auto x = to_.demand({"PUT", key_, query, {}, body_of(bytes_, p), *hash});
    if (!x) return tl::unexpected(x.error());
    etags_[i] = (*x)->header("ETag");
    (*x)->words(); // read to its end, the connection can be used again
    if (etags_[i].empty()) return fail(ec::bad_message, "the S3 server names no ETag of a part of " + key_);
    return {};
  }

  /// Whether these very bytes are under the key.
  bool is_there() {
    auto x = to_.demand({"HEAD", key_});
    return x && (*x)->header(sha256_header) == sha256_;
  }

  bucket& to_;
  const std::string& key_;
  const spool_file& bytes_;
  const std::string sha256_;
  const multipart_bounds bounds_;
  std::uint64_t part_bytes_ = 0;
  std::vector<std::string> etags_; ///< of the parts; each written by the thread that puts it
};

/// The time behind "2013-05-24T00:00:00.000Z".
std::optional<std::chrono::seconds> begun_at(const std::string& initiated) {
  std::tm parts{};
  if (!::strptime(initiated.c_str(), "%Y-%m-%dT%H:%M:%S", &parts)) return std::nullopt;
  return std::chrono::seconds{::timegm(&parts)};
}

/// One that is no more is no error.
expected<void> abort_upload(bucket& at, const open_upload& upload) {
  auto x = at.demand({"DELETE", upload.key, {{"uploadId", upload.id}}});
  if (!x && x.error().code != ec::not_found && x.error().code != ec::missing) return tl::unexpected(x.error());
  if (x) (*x)->words();
  return {};
}

} // namespace

expected<void> on_threads(std::size_t count, std::size_t threads,
                          const std::function<expected<void>(std::size_t)>& job) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  expected<void> result;
  const auto work = [&] {
    while (!failed) {
      const auto i = next++;
      if (i >= count) return;
      auto done = job(i);
      if (done) continue;
      std::lock_guard lock{mutex};
      if (!failed.exchange(true)) result = std::move(done);
    }
  };
  std::vector<std::jthread> others;
  for (std::size_t i = 1; i < std::min(threads, count); ++i)
    others.emplace_back(work);
  work();
  others.clear(); // joins them
  return result;
}

expected<void> put_in_parts(bucket& to, upload_journal& journal, const std::string& key, const spool_file& bytes,
                            const nix::hash& sha256, const multipart_bounds& bounds) {
  if (auto swept = sweep_uploads(to, journal); !swept) // another time
    rt::log::warn("S3", "an abandoned upload stays for now error={}", to_string(swept.error()));
  part_upload upload{to, key, bytes, sha256, bounds};
  const auto begun = upload.begin();
  if (!begun) return tl::unexpected(begun.error());
  auto done = journal.begin(*begun).and_then([&] { return upload.put_parts(begun->id); }).and_then([&] {
    return upload.complete(begun->id);
  });
  if (done || abort_upload(to, *begun)) {
    if (auto ended = journal.end(*begun); !ended && done) return ended;
  } else {
    journal.give_up(*begun);
  }
  return done;
}

expected<std::size_t> sweep_uploads(bucket& at, upload_journal& journal) {
  const auto abandoned = journal.abandoned();
  if (!abandoned) return tl::unexpected(abandoned.error());
  std::size_t count = 0;
  for (const auto& upload : *abandoned) {
    const auto done = abort_upload(at, upload).and_then([&] { return journal.end(upload); });
    if (!done) return tl::unexpected(done.error());
    rt::log::info("S3", "abandoned upload aborted key={}", upload.key);
    ++count;
  }
  return count;
}

expected<std::size_t> sweep_old_uploads(bucket& at, std::chrono::hours age) {
  std::size_t count = 0;
  std::string key_marker, id_marker;
  for (bool more = true; more;) {
    bucket_call c{
        "GET", "", {{"uploads", ""}, {"encoding-type", "url"}, {"max-uploads", std::to_string(at.bounds().page_max)}}};
    if (!key_marker.empty()) c.query.emplace_back("key-marker", key_marker);
    if (!id_marker.empty()) c.query.emplace_back("upload-id-marker", id_marker);
    auto x = at.demand(c);
    if (!x) return tl::unexpected(x.error());
    const auto now = ::curl_getdate((*x)->header("Date").c_str(), nullptr);
    const auto page = at.rest_of(**x).and_then(parse_uploads);
    if (!page) return tl::unexpected(page.error());
    for (const auto& upload : page->uploads) {
      const auto since = begun_at(upload.initiated);
      if (now == -1 || !since || std::chrono::seconds{now} - *since < age) continue;
      if (auto done = abort_upload(at, upload); !done) return tl::unexpected(done.error());
      rt::log::info("S3", "upload of long ago aborted key={} initiated={}", upload.key, upload.initiated);
      ++count;
    }
    more = page->more && page->key_marker != key_marker;
    key_marker = page->key_marker;
    id_marker = page->id_marker;
  }
  return count;
}

} // namespace coppice::store::s3
