#include "store/s3_blob_store.hpp"
#include "tests/support/tcp_proxy.hpp"
#include "tests/unit/store/blob_store_conformance.hpp"

#include <atomic>
#include <cstdlib>
#include <future>
#include <random>
#include <thread>

/// The store of blobs against a real S3 server, which tests/support/rgw.py starts: each test has buckets of its own.
namespace coppice::store::test {

using namespace std::chrono_literals;
using coppice::test::tcp_proxy;

namespace {

std::string variable(const char* name) {
  const auto* value = std::getenv(name);
  if (!value) FAIL(name << " is not set: run this by tests/support/rgw.py");
  return value;
}

std::string new_name() {
  static std::random_device random;
  return "test-" + std::to_string(random()) + std::to_string(random());
}

constexpr std::uint64_t part_bytes = 5u << 20; // the least that servers take

using change = std::function<void(s3_blob_options&)>;

/// A bucket, made if `make` says so, and what uses it.
class s3_site {
public:
  explicit s3_site(
      const fs::path& dir, const change& how = [](auto&) {}, bool make = true) {
    options.place = {variable("COPPICE_S3_ENDPOINT"), new_name()};
    options.environment = [](const char* name) { return std::getenv(name); };
    options.scratch_dir = dir;
    options.clock = &clock;
    options.stop = &stop;
    options.limits.retry_delay = 20ms;
    options.limits.parts.part_bytes = part_bytes;
    options.limits.parts.from_bytes = part_bytes + 1;
    options.limits.page_max = 2; // so that listings have several
    if (make) {
      s3::bucket at{options.place, [this] { return s3::find_credentials({}, options.environment); }, options.limits,
                    clock, stop};
      good(at.demand({"PUT", ""}));
    }
    how(options);
    reopen();
  }
  void reopen() {
    blobs.reset();
    blobs = good(s3_blob_store::open_bucket(options));
  }
  s3::bucket raw() {
    return {options.place, [this] { return s3::find_credentials({}, options.environment); }, options.limits, clock,
            stop};
  }
  std::vector<s3::open_upload> open_uploads() {
    return good(raw().text({"GET", "", {{"uploads", ""}, {"encoding-type", "url"}}}).and_then(s3::parse_uploads))
        .uploads;
  }

  rt::real_clock clock;
  std::atomic<bool> stop{false};
  s3_blob_options options;
  std::unique_ptr<s3_blob_store> blobs;
};

std::string bytes_of(std::size_t size) {
  std::string bytes(size, '\0');
  std::mt19937_64 random{1};
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const auto word = random();
    std::copy_n(reinterpret_cast<const char*>(&word), 8, bytes.data() + i);
  }
  return bytes;
}

expected<void> write_blob(blob_store& blobs, const std::string& key, std::string_view bytes) {
  auto writer = blobs.begin();
  if (!writer) return tl::unexpected(writer.error());
  return (*writer)->write(bytes).and_then([&] { return (*writer)->commit(key); });
}

/// What anybody gets at the URL.
expected<std::string> fetched(const std::string& url, long status) {
  static const std::atomic<bool> never{false};
  std::string text;
  const auto got = http_get(
      url, 0, [&](std::string_view bytes) -> expected<void> { return text += bytes, expected<void>{}; }, {}, never);
  if (!got) return tl::unexpected(got.error());
  CHECK(*got == status);
  return text;
}

} // namespace

std::unique_ptr<blobs_under_test> make_blobs(const fs::path& dir) {
  class in_bucket final : public blobs_under_test {
  public:
    explicit in_bucket(const fs::path& at) : site_(at) { good(site_.blobs->claim("/nix/store")); }
    blob_store& blobs() override { return *site_.blobs; }
    bool on_disk() const override { return false; }
    void spoil(const std::string& key, const std::string& bytes) override { good(site_.blobs->put(key, bytes)); }

  private:
    s3_site site_;
  };
  return std::make_unique<in_bucket>(dir);
}

TEST_CASE("a large blob is put in parts, and nothing but the blob stays") {
  const scratch_dir dir;
  s3_site site{dir / "scratch"};
  const auto bytes = bytes_of(3 * part_bytes + 17);
  good(write_blob(*site.blobs, "nar/large", bytes));
  CHECK(good(read_blob(*site.blobs, "nar/large", bytes.size())) == bytes);
  CHECK(good(site.blobs->stat("nar/large")) == bytes.size());
  CHECK(listed(*site.blobs, "").size() == 1);
  CHECK(site.open_uploads().empty());
  CHECK(entries_below(dir / "scratch") == 1); // the journal's directory
}

TEST_CASE("a bucket is for one store directory, and what is in it stays when it is claimed") {
  const scratch_dir dir;
  s3_site site{dir / "scratch"};
  CHECK(good(site.blobs->put_new("log/a", "first")));
  CHECK_FALSE(good(site.blobs->put_new("log/a", "second")));
  CHECK(good(read_blob(*site.blobs, "log/a", 100)) == "first");
  good(site.blobs->claim("/nix/store"));
  good(site.blobs->claim("/nix/store"));
  CHECK(code_of(site.blobs->claim("/other/store")) == ec::conflict);
  CHECK(code_of(site.blobs->claim("/nix")) == ec::conflict);
}

TEST_CASE("of many that put a blob anew at the same time one does") {
  const scratch_dir dir;
  s3_site site{dir / "scratch"};
  std::atomic<int> did{0};
  good(s3::on_threads(8, 8, [&](std::size_t i) {
    return site.blobs->put_new("log/a", std::to_string(i)).map([&](bool mine) { did += mine; });
  }));
  CHECK(did == 1);
}

TEST_CASE("anybody may read a blob at its URL, for a while") {
  const scratch_dir dir;
  s3_site site{dir / "scratch"};
  const std::string key = "log/a+b?c=d";
  good(site.blobs->put(key, "bytes"));
  const auto url = good(site.blobs->url_of(key, 60s));
  CHECK(good(fetched(url, 200)) == "bytes");
  CHECK(good(fetched(good(site.blobs->url_of("log/absent", 60s)), 404)).empty());
  auto changed = url;
  changed.replace(changed.find("log/a"), 5, "log/b");
  good(fetched(changed, 403));
  const auto brief = good(site.blobs->url_of(key, 1s));
  std::this_thread::sleep_for(2500ms);
  good(fetched(brief, 403));
}

TEST_CASE("a bucket may be named in the host") {
  const scratch_dir dir;
  s3_site site{dir / "scratch", [](auto& o) {
                 o.place.endpoint = "http://localhost:" + variable("COPPICE_S3_PORT");
                 o.place.virtual_host = true;
               }};
  good(site.blobs->put("log/a", "bytes"));
  CHECK(listed(*site.blobs, "") == std::map<std::string, std::uint64_t>{{"log/a", 5}});
  CHECK(good(fetched(good(site.blobs->url_of("log/a", 60s)), 200)) == "bytes");
}

TEST_CASE("wrong settings are told apart, and from a server that is not there") {
  const scratch_dir dir;
  SECTION("a bucket that is not there") {
    s3_site site{dir / "scratch", [](auto&) {}, false};
    CHECK(code_of(site.blobs->put("log/a", "x")) == ec::not_found);
    CHECK(code_of(site.blobs->claim("/nix/store")) == ec::not_found);
  }
  SECTION("a secret that is wrong") {
    s3_site site{dir / "scratch", [](auto& o) {
                   o.environment = [](const char* name) -> const char* {
                     return std::string_view{name} == "AWS_SECRET_ACCESS_KEY" ? "wrong" : std::getenv(name);
                   };
                 }};
    const auto put = site.blobs->put("log/a", "x");
    CHECK(code_of(put) == ec::forbidden);
    CHECK(put.error().what.find("SignatureDoesNotMatch") != std::string::npos);
  }
  SECTION("no server") {
    s3_site site{dir / "scratch", [](auto& o) { o.place.endpoint = "http://127.0.0.1:9"; }};
    CHECK(code_of(site.blobs->put("log/a", "x")) == ec::unavailable);
  }
}

TEST_CASE("credentials that are exchanged in their file are used without a restart") {
  const scratch_dir dir;
  const auto file = dir / "credentials";
  const auto put_file = [&](const std::string& secret) {
    write(file,
          "[default]\naws_access_key_id = " + variable("AWS_ACCESS_KEY_ID") + "\naws_secret_access_key = " + secret +
              "\n",
          0600);
  };
  put_file("wrong");
  s3_site site{dir / "scratch", [&](auto& o) { o.credentials.file = file; }};
  CHECK(code_of(site.blobs->put("log/a", "x")) == ec::forbidden);
  put_file(variable("AWS_SECRET_ACCESS_KEY"));
  good(site.blobs->put("log/a", "x"));
}

TEST_CASE("uploads of a process that died are aborted by its successor, those of others once they are old") {
  const scratch_dir dir;
  s3_site site{dir / "scratch"};
  const auto begin = [&](const std::string& key) {
    const s3::bucket_call c{"POST", key, {{"uploads", ""}}, {}, s3::body_of(""), s3::payload_hash("")};
    return s3::open_upload{key, good(site.raw().text(c).and_then(s3::parse_initiated)), ""};
  };
  const auto mine = begin("nar/mine"), others = begin("nar/others");
  begin("nar/others"), begin("nar/others"), begin("nar/another"); // more than a page
  good(good(s3::upload_journal::open(dir / "scratch" / "uploads"))->begin(mine));
  site.reopen();
  CHECK(good(site.blobs->sweep(24h)) == 1);
  CHECK(good(site.blobs->sweep(24h)) == 0);
  const auto left = good(site.raw().text({"GET", "", {{"uploads", ""}}}).and_then(s3::parse_uploads)).uploads;
  CHECK(left.size() == 4);
  CHECK(good(site.blobs->sweep(0h)) == 4);
  CHECK(site.open_uploads().empty());
}

TEST_CASE("an upload in parts that the network cuts goes on, and comes through whole") {
  const scratch_dir dir;
  tcp_proxy proxy{std::stoi(variable("COPPICE_S3_PORT"))};
  s3_site site{dir / "scratch", [&](auto& o) { o.place.endpoint = proxy.url(); }};
  const auto bytes = bytes_of(4 * part_bytes);
  for (const std::uint64_t after : {300'000, 2'000'000, 5'000'000})
    proxy.next({tcp_proxy::way::up, after, tcp_proxy::act::cut});
  proxy.next({tcp_proxy::way::up, 1'000'000, tcp_proxy::act::flip});
  good(write_blob(*site.blobs, "nar/large", bytes));
  CHECK(good(read_blob(*site.blobs, "nar/large", bytes.size())) == bytes);
  CHECK(site.open_uploads().empty());
}

TEST_CASE("an upload in parts that cannot end is aborted, or once the server is there again") {
  const scratch_dir dir;
  tcp_proxy proxy{std::stoi(variable("COPPICE_S3_PORT"))};
  s3_site site{dir / "scratch", [&](auto& o) {
                 o.place.endpoint = proxy.url();
                 o.limits.parts.outage_max = 0ms;
                 o.limits.parts.parts_at_once = 1;
                 o.limits.connections_idle_max = 0;
               }};
  const auto place = site.options.place;
  proxy.next({tcp_proxy::way::up, 100'000'000, tcp_proxy::act::cut}); // the first request comes through
  proxy.always(tcp_proxy::fault{tcp_proxy::way::up, 100, tcp_proxy::act::cut});
  CHECK(code_of(write_blob(*site.blobs, "nar/large", bytes_of(2 * part_bytes))) == ec::unavailable);
  proxy.always(std::nullopt);
  CHECK(site.open_uploads().size() == 1);
  CHECK(good(site.blobs->sweep(24h)) == 1);
  CHECK(site.open_uploads().empty());
  CHECK(listed(*site.blobs, "").empty());
}

TEST_CASE("reading goes on where the network cut it") {
  const scratch_dir dir;
  tcp_proxy proxy{std::stoi(variable("COPPICE_S3_PORT"))};
  s3_site site{dir / "scratch", [&](auto& o) { o.place.endpoint = proxy.url(); }};
  const auto bytes = bytes_of(3 * part_bytes);
  good(write_blob(*site.blobs, "nar/large", bytes));
  site.reopen(); // new connections
  const auto before = proxy.down();
  for (const std::uint64_t after : {1'000'000, 3'000'000})
    proxy.next({tcp_proxy::way::down, after, tcp_proxy::act::cut});
  CHECK(good(read_blob(*site.blobs, "nar/large", bytes.size())) == bytes);
  CHECK(proxy.down() - before < bytes.size() + (4u << 20)); // not all of it again
}

TEST_CASE("a store that is to stop does so in the middle of an upload") {
  const scratch_dir dir;
  s3_site site{dir / "scratch", [](auto& o) { o.place.endpoint = "http://127.0.0.1:9"; }};
  auto put =
      std::async(std::launch::async, [&] { return write_blob(*site.blobs, "nar/large", bytes_of(2 * part_bytes)); });
  std::this_thread::sleep_for(50ms);
  site.stop = true;
  REQUIRE(put.wait_for(10s) == std::future_status::ready);
  const auto code = code_of(put.get());
  CHECK((code == ec::shutdown || code == ec::unavailable));
}

} // namespace coppice::store::test
