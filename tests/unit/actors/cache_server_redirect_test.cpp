#include "tests/unit/actors/http_blobs_fixture.hpp"

#include <atomic>
#include <thread>

using namespace coppice;
using namespace coppice::test;

namespace {

const std::string bytes = "the bytes of a NAR";
const std::string key = store::nar_key(blob_id{nix::sha256(bytes)}, generation{1});

/// The URLs of a store, at a server beside it.
class with_urls final : public store::blob_urls {
public:
  explicit with_urls(store::blob_store& blobs) : blobs_(blobs) {
    server_.Get("/of-the-store/(.*)", [this](const httplib::Request& req, httplib::Response& res) {
      ++reads;
      tickets += req.has_header("Authorization");
      const auto found = store::read_blob(blobs_, req.matches[1], 1 << 20);
      if (!found) return void(res.status = 404);
      res.set_header("ETag", "\"one\"");
      res.set_content(*found, "application/octet-stream");
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread{[this] { server_.listen_after_bind(); }};
    while (!server_.is_running())
      std::this_thread::yield();
  }
  ~with_urls() override {
    server_.stop();
    thread_.join();
  }
  expected<std::string> url_of(const std::string& of, std::chrono::seconds valid) override {
    if (valid != 60s) return fail(ec::invalid, "not as configured");
    return "http://127.0.0.1:" + std::to_string(port_) + "/of-the-store/" + of;
  }

  std::atomic<int> reads{0}, tickets{0};

private:
  store::blob_store& blobs_;
  httplib::Server server_;
  int port_ = 0;
  std::thread thread_;
};

struct redirecting {
  redirecting()
      : site([&](auto& c) {
        urls = std::make_unique<with_urls>(*c.blobs);
        c.urls = urls.get();
        c.urls_valid = 60s;
      }) {}
  std::unique_ptr<with_urls> urls;
  cache_site site;
  member me{site};
};

} // namespace

TEST_CASE("readers of NARs are sent to where the store itself has them, those of what is small are served") {
  redirecting r;
  REQUIRE(r.site.blobs->put(key, bytes));
  REQUIRE(r.site.blobs->put("log/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a.drv", "words"));
  auto client = r.site.client();
  const auto got = client.Get("/" + key);
  CHECK(got->status == 307);
  CHECK(got->get_header_value("Location").ends_with("/of-the-store/" + key));
  const auto head = client.Head("/" + key);
  CHECK(head->status == 200);
  CHECK(head->get_header_value("Content-Length") == std::to_string(bytes.size()));
  CHECK(client.Get("/log/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a.drv")->body == "words");
  CHECK(r.urls->reads == 0);
}

TEST_CASE("a machine follows to where the store itself has a blob, without its ticket") {
  redirecting r;
  REQUIRE(r.me->put(key, bytes));
  CHECK(store::read_blob(*r.me.blobs, key, 100) == bytes);
  CHECK(r.urls->reads == 1);
  auto open = r.me->open(key);
  REQUIRE(open);
  std::string tail(3, '\0');
  CHECK((*open)->read(bytes.size() - 3, tail) == 3u); // a range of it
  CHECK(tail == "NAR");
  CHECK(r.urls->tickets == 0);
  const auto absent = r.me->open(store::nar_key(blob_id{nix::sha256("x")}, generation{1}));
  REQUIRE_FALSE(absent);
  CHECK(absent.error().code == ec::missing);
}
