#include "nix/narinfo.hpp"
#include "nix/signature.hpp"
#include "store/closure.hpp"
#include "store/compression.hpp"
#include "tests/unit/actors/cache_server_fixture.hpp"

#include <atomic>
#include <thread>

using namespace coppice;
using namespace coppice::test;

namespace {

std::string source_url(const sample& s) {
  return "source/" + s.path.base_name();
}

/// A derivation's text and its path.
std::pair<nix::store_path, std::string> small_derivation() {
  nix::derivation d;
  auto hash = nix::hash_of(nix::hash_algo::sha256, "contents");
  auto out = nix::fixed_output_path("small", nix::content_method::flat, hash).value();
  d.name = d.env["name"] = "small";
  d.system = "x86_64-linux";
  d.builder = "/bin/sh";
  d.outputs["out"] = {out, "sha256", hash.base16()};
  d.env["out"] = out.to_string();
  auto text = nix::print_derivation(d);
  return {nix::text_path("small.drv", text, {}).value(), text};
}

} // namespace

TEST_CASE("an upload needs a ticket that is known and not over") {
  cache_site site;
  auto s = source_sample("a", "1");
  auto status = [&](httplib::Headers h) {
    auto r = site.client().Put("/upload/" + source_url(s), h, s.exported, "x/y");
    return r ? r->status : 0;
  };
  CHECK(status({}) == 401);
  CHECK(status({{"Authorization", "Bearer "}}) == 401);
  CHECK(status({{"Authorization", "Bearer " + rt::random_secret()}}) == 401);
  auto ticket = site.open().value();
  CHECK(status({{"Authorization", "Basic " + ticket}}) == 401);
  site.clock.advance(10min);
  CHECK(status({{"Authorization", "Bearer " + ticket}}) == 401);
  CHECK_FALSE(site.book.find(s.path));
  CHECK(status({{"Authorization", "Bearer " + site.open().value()}}) == 200);
}

TEST_CASE("who may only look gets no ticket") {
  cache_site site;
  CHECK(site.open(role::observer).error().code == ec::forbidden);
  CHECK(site.open(role::admin));
}

TEST_CASE("a source that was uploaded is known, stored, and served with a signature") {
  auto key = nix::secret_key::generate("test-1").value();
  cache_site site{[&](auto& c) { c.key = &key; }};
  auto s = source_sample("hello", noise(300'000));
  auto r = site.put(source_url(s), s.exported);
  REQUIRE(r);
  CHECK(r->status == 200);
  auto row = site.book.find(s.path);
  REQUIRE(row);
  auto text = site.client().Get("/" + std::string{s.path.hash_part()} + ".narinfo");
  REQUIRE(text);
  auto narinfo = nix::parse_narinfo(text->body);
  REQUIRE(narinfo);
  CHECK(nix::content_address_matches(*narinfo).value());
  CHECK(nix::verify_any(narinfo->fingerprint(), narinfo->sigs, std::vector{key.public_key()}));
  auto nar = site.client().Get("/" + narinfo->url);
  REQUIRE(nar);
  CHECK(nix::sha256(store::decompress(nar->body, {}).value()) == row->nar_hash.bytes);
}

TEST_CASE("an upload may be compressed, chunked, wait for 100-continue, and be repeated") {
  cache_site site;
  auto ticket = site.open().value();
  auto a = source_sample("a", noise(200'000));
  CHECK(site.put(source_url(a), store::compress(a.exported).value(), ticket, {{"Content-Encoding", "zstd"}})->status ==
        200);
  CHECK(site.put(source_url(a), a.exported, ticket)->status == 200);
  auto b = source_sample("b", noise(200'000));
  std::size_t sent = 0;
  auto chunked = site.client().Put(
      "/upload/" + source_url(b), {{"Authorization", "Bearer " + ticket}},
      [&](std::size_t, httplib::DataSink& sink) {
        auto n = std::min<std::size_t>(10'000, b.exported.size() - sent);
        sink.write(b.exported.data() + sent, n);
        if ((sent += n) == b.exported.size()) sink.done();
        return true;
      },
      "x/y");
  REQUIRE(chunked);
  CHECK(chunked->status == 200);
  auto c = source_sample("c", "3");
  auto head = "PUT /upload/" + source_url(c) +
              " HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: " + std::to_string(c.exported.size()) +
              "\r\nAuthorization: Bearer ";
  CHECK(site.raw(head + "wrong\r\n\r\n").starts_with("HTTP/1.1 401"));
  int fd = site.connect();
  auto good = head + ticket + "\r\n\r\n";
  REQUIRE(::send(fd, good.data(), good.size(), 0) > 0);
  CHECK(site.receive(fd, 10s, "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
  REQUIRE(::send(fd, c.exported.data(), c.exported.size(), 0) > 0);
  CHECK(site.receive(fd, 10s, "stored\n").starts_with("HTTP/1.1 200"));
  ::close(fd);
}

TEST_CASE("several uploads go over one connection") {
  cache_site site;
  httplib::Headers headers{{"Authorization", "Bearer " + site.open().value()}};
  auto c = site.client();
  c.set_keep_alive(true);
  for (int i = 0; i < 5; ++i) {
    auto s = source_sample("s", std::to_string(i));
    auto r = c.Put("/upload/" + source_url(s), headers, s.exported, "x/y");
    REQUIRE(r);
    CHECK(r->status == 200);
    CHECK(r->get_header_value("Connection") != "close");
  }
}

TEST_CASE("what is wrong with a source is told, and nothing of it is kept") {
  cache_site site{[](auto& c) { c.limits.upload_bytes_max = 1'000'000; }};
  auto s = source_sample("a", noise(100'000)), other = source_sample("b", "other");
  auto flipped = s.exported;
  flipped[5'000] = static_cast<char>(flipped[5'000] ^ 1);
  auto large = source_sample("large", noise(3'000'000));
  struct wrong {
    const char* what;
    sample to;
    std::string body;
    int status;
    const char* text;
  };
  for (auto& w :
       {wrong{"flipped byte", s, flipped, 422, "is not content-addressed: only sources and texts can be uploaded"},
        wrong{"other path", s, other.exported, 422, "this is an export of"},
        wrong{"truncated", s, s.exported.substr(0, 50'000), 400, "too early"},
        wrong{"no export", s, "hello", 400, "no export"}, wrong{"empty", s, "", 400, "no export"},
        wrong{"too large", large, large.exported, 413, "larger than the 1000000 bytes"}}) {
    INFO(w.what);
    auto r = site.put(source_url(w.to), w.body);
    REQUIRE(r);
    CHECK(r->status == w.status);
    CHECK(r->body.find(w.text) != std::string::npos);
    CHECK_FALSE(site.book.find(w.to.path));
  }
  std::size_t blobs = 0;
  REQUIRE(site.blobs->list("nar/", [&](const std::string&, std::uint64_t) { return ++blobs, true; }));
  CHECK(blobs == 0);
  CHECK(site.put("source/" + s.path.base_name(), s.exported, {}, {{"Content-Encoding", "gzip"}})->status == 415);
  CHECK(site.put("source/x", "x")->status == 404);
}

TEST_CASE("a source is taken only after all it refers to") {
  cache_site site;
  auto a = source_sample("a", "1");
  auto b = source_sample("b", "2", {a.path});
  auto early = site.put(source_url(b), b.exported);
  REQUIRE(early);
  CHECK(early->status == 409);
  CHECK(early->body.find(a.path.to_string()) != std::string::npos);
  CHECK(site.put(source_url(a), a.exported)->status == 200);
  CHECK(site.put(source_url(b), b.exported)->status == 200);
  CHECK(site.book.find(b.path)->references == std::vector{a.path});
}

TEST_CASE("the same source from many clients at once is stored once") {
  cache_site site;
  auto s = source_sample("s", noise(500'000));
  auto ticket = site.open().value();
  std::atomic<int> done{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i)
    clients.emplace_back([&] {
      auto r = site.put(source_url(s), s.exported, ticket);
      if (r && r->status == 200) ++done;
    });
  for (auto& t : clients)
    t.join();
  CHECK(done == 8);
  std::size_t blobs = 0;
  REQUIRE(site.blobs->list("nar/", [&](const std::string&, std::uint64_t) { return ++blobs, true; }));
  CHECK(blobs == 1);
}

TEST_CASE("a blob that was condemned is put again under its next generation") {
  cache_site site;
  auto s = source_sample("s", "contents");
  REQUIRE(site.put(source_url(s), s.exported)->status == 200);
  auto info = site.book.find(s.path).value();
  site.book.rows = store::open_memory_ledger();
  REQUIRE(site.book.run(ledger::condemn{info.blob, info.gen}));
  REQUIRE(site.put(source_url(s), s.exported)->status == 200);
  auto again = site.book.find(s.path).value();
  CHECK(again.gen.value == info.gen.value + 1);
  CHECK(site.blobs->stat(store::nar_key(again.blob, again.gen)).value());
  auto text = site.client().Get("/" + std::string{s.path.hash_part()} + ".narinfo");
  CHECK(nix::parse_narinfo(text->body)->url == store::nar_key(again.blob, again.gen));
}

TEST_CASE("a ledger that refuses or is silent makes an upload 503, to be tried again") {
  cache_site site{[](auto& c) { c.limits.answer_timeout = 300ms; }};
  auto s = source_sample("s", "x");
  for (auto code : {ec::unavailable, ec::overloaded, ec::restarted, ec::upload_again}) {
    site.book.fault = code;
    auto r = site.put(source_url(s), s.exported);
    REQUIRE(r);
    CHECK(r->status == 503);
    CHECK(r->has_header("Retry-After"));
  }
  site.book.fault.reset();
  site.book.silent = true;
  CHECK(site.put(source_url(s), s.exported)->status == 503);
}

TEST_CASE("an end does not wait for a silent ledger") {
  cache_site site{[](auto& c) { c.limits.answer_timeout = 30s; }};
  auto s = source_sample("s", "x");
  auto ticket = site.open().value();
  site.book.silent = true;
  std::thread client{[&] { site.put(source_url(s), s.exported, ticket); }};
  std::this_thread::sleep_for(200ms);
  auto before = std::chrono::steady_clock::now();
  site.stop();
  CHECK(std::chrono::steady_clock::now() - before < 2s);
  client.join();
}

TEST_CASE("more uploads at once than allowed are told to come again") {
  cache_site site{[](auto& c) { c.limits.uploads_max = 1; }};
  auto s = source_sample("s", "x");
  auto ticket = site.open().value();
  auto head = "PUT /upload/" + source_url(s) + " HTTP/1.1\r\nContent-Length: 1000\r\nAuthorization: Bearer " + ticket +
              "\r\n\r\n";
  auto status = 0;
  for (int i = 0; i < 100 && status != 503; ++i) {
    // whichever comes second is refused: again until that is ours
    int fd = site.connect();
    REQUIRE(::send(fd, head.data(), head.size(), 0) > 0);
    std::this_thread::sleep_for(20ms);
    auto other = source_sample("other", std::to_string(i));
    auto r = site.put(source_url(other), other.exported, ticket);
    status = r ? r->status : 0;
    ::close(fd);
  }
  CHECK(status == 503);
}

TEST_CASE("a closure is stored under its hash if it is one") {
  cache_site site{[](auto& c) { c.limits.closure_bytes_max = 100'000; }};
  auto packed = store::pack_closure({small_derivation()}).value();
  auto id = store::closure_id(packed);
  auto good = site.put("closure/" + id.to_string(), packed);
  REQUIRE(good);
  INFO(good->body);
  CHECK(good->status == 200);
  auto row = std::get<ledger::blob_state>(site.book.run(ledger::stat_blob{id}).value());
  CHECK(row.present);
  CHECK(store::read_blob(*site.blobs, store::closure_key(id, row.gen), 1'000'000).value() == packed);
  CHECK(site.put("closure/" + id.to_string(), packed)->status == 200);
}

TEST_CASE("a closure with another hash, that is none, or is too large is refused and leaves nothing") {
  cache_site site{[](auto& c) { c.limits.closure_bytes_max = 100'000; }};
  auto packed = store::pack_closure({small_derivation()}).value();
  auto status = [&](const blob_id& id, const std::string& body) {
    auto r = site.put("closure/" + id.to_string(), body);
    return r ? r->status : 0;
  };
  CHECK(status(store::closure_id("other"), packed) == 422);
  CHECK(status(store::closure_id("no closure"), "no closure") == 422);
  CHECK(status(store::closure_id(""), "") == 422);
  auto forged = store::pack_closure({{source_sample("x.drv", "x").path, small_derivation().second}}).value();
  CHECK(status(store::closure_id(forged), forged) == 422);
  auto large = noise(200'000);
  CHECK(status(store::closure_id(large), large) == 413);
  CHECK(site.put("closure/" + std::string(63, 'a'), packed)->status == 404);
  std::size_t blobs = 0;
  REQUIRE(site.blobs->list("closures/", [&](const std::string&, std::uint64_t) { return ++blobs, true; }));
  CHECK(blobs == 0);
  CHECK(fs::is_empty(site.dir.path / "uploads"));
}

TEST_CASE("what a crash left of uploads is swept at birth") {
  cache_site site;
  site.stop();
  write_file(site.dir.path / "uploads" / "spool-abcdef", "left");
  site.start();
  CHECK(fs::is_empty(site.dir.path / "uploads"));
}
