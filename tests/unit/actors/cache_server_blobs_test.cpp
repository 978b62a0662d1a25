#include "nix/hash.hpp"
#include "tests/unit/actors/cache_server_fixture.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <map>

using namespace coppice;
using namespace coppice::test;

namespace {

httplib::Headers bearing(const std::string& ticket, httplib::Headers more = {}) {
  more.emplace("Authorization", "Bearer " + ticket);
  return more;
}

std::string digest_of(std::string_view bytes) {
  return "sha-256=:" + nix::hash_of(nix::hash_algo::sha256, bytes).base64() + ":";
}

httplib::Result put_blob(cache_site& site, const std::string& key, const std::string& bytes,
                         httplib::Headers headers = {}, std::optional<role> as = role::node) {
  if (headers.count("Content-Digest") == 0) headers.emplace("Content-Digest", digest_of(bytes));
  if (as) headers = bearing(site.open(*as).value(), headers);
  return site.client().Put("/blobs/" + key, headers, bytes, "application/octet-stream");
}

int status_of(const httplib::Result& r) {
  return r ? r->status : 0;
}

std::size_t files_of(const cache_site& site) {
  std::size_t n = 0;
  for (auto& e : fs::recursive_directory_iterator{site.dir.path / "blobs"})
    n += e.is_regular_file();
  return n;
}

} // namespace

TEST_CASE("blobs are for those whose ticket was issued to a machine, and for nobody else") {
  cache_site site;
  REQUIRE(site.blobs->put("log/x", "bytes"));
  const auto ask = [&](const httplib::Headers& h) {
    auto c = site.client();
    std::map<std::string, int> got;
    got["get"] = status_of(c.Get("/blobs/log/x", h));
    got["head"] = status_of(c.Head("/blobs/log/x", h));
    got["list"] = status_of(c.Get("/blobs?prefix=log/", h));
    got["delete"] = status_of(c.Delete("/blobs/log/y", h));
    auto with = h;
    with.emplace("Content-Digest", digest_of("z"));
    got["put"] = status_of(c.Put("/blobs/log/z", with, "z", "x/y"));
    return got;
  };
  const auto all = [](int status) {
    return std::map<std::string, int>{
        {"get", status}, {"head", status}, {"list", status}, {"delete", status}, {"put", status}};
  };
  CHECK(ask({}) == all(401));
  CHECK(ask(bearing(rt::random_secret())) == all(401));
  CHECK(ask(bearing(site.open(role::submitter).value())) == all(403));
  CHECK(ask(bearing(site.open(role::admin).value())) == all(403));
  const auto node = site.open(role::node).value();
  CHECK_FALSE(site.blobs->stat("log/z").value());
  CHECK(ask(bearing(node)) == all(200));
  site.clock.advance(10min);
  CHECK(ask(bearing(node)) == all(401));
}

TEST_CASE("a machine writes and removes what is not shown as a binary cache, under keys that are such") {
  cache_site site;
  const blob_id x{nix::sha256("x")}, y{nix::sha256("y")};
  const std::map<std::string, int> expected{{"log/a", 200},
                                            {"attempts/a/b", 200},
                                            {store::nar_key(x, {1}), 200},
                                            {store::closure_key(x, {7}), 200},
                                            {store::nar_key(y, {1}), 422},
                                            {store::closure_key(y, {1}), 422},
                                            {"nar/x", 422},
                                            {"nar/" + x.to_string() + ".nar.zst", 422},
                                            {"log/", 422},
                                            {"log/../x", 422},
                                            {"log/.x", 422},
                                            {"log/a%20b", 422},
                                            {"", 422},
                                            {"7c0qdvsd3w3f7x4n0kzmd5yp0y2nvmxk.narinfo", 403},
                                            {"nix-cache-info", 403},
                                            {"realisations/x.doi", 403},
                                            {"x", 403}};
  const auto node = bearing(site.open(role::node).value());
  for (auto& [key, status] : expected) {
    INFO(key);
    CHECK(status_of(put_blob(site, key, "x")) == status);
    if (status != 200) CHECK(status_of(site.client().Delete("/blobs/" + key, node)) >= (status == 422 ? 200 : status));
  }
  CHECK(site.blobs->stat("nix-cache-info").value());
  CHECK(files_of(site) == 5);
  CHECK(status_of(site.client().Put("/blobs", node, "x", "x/y")) == 404);
  CHECK(status_of(site.client().Delete("/log/a", node)) == 405);
  CHECK(site.blobs->stat("log/a").value());
}

TEST_CASE("a blob must come whole, with the digest that was said, and leaves nothing else") {
  cache_site site{[](auto& c) { c.limits.blob_bytes_max = 100'000; }};
  const auto before = files_of(site);
  CHECK(status_of(put_blob(site, "log/a", "x", {{"Content-Digest", digest_of("y")}})) == 400);
  for (auto* wrong : {"", "sha-256=x", "sha-256=::", "sha-256=:AAAA:", "sha-512=:AAAA:", "md5"}) {
    INFO(wrong);
    CHECK(status_of(put_blob(site, "log/a", "x", {{"Content-Digest", wrong}})) == 400);
  }
  CHECK(status_of(put_blob(site, "log/a", "x", {{"Content-Encoding", "zstd"}})) == 415);
  CHECK(status_of(put_blob(site, "log/a", std::string(100'001, 'x'))) == 413);
  const auto node = site.open(role::node).value();
  const auto head = "PUT /blobs/log/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + node + "\r\nContent-Digest: ";
  const auto chunk = "20000\r\n" + std::string(0x20000, 'x') + "\r\n0\r\n\r\n";
  CHECK(site.raw(head + digest_of(std::string(0x20000, 'x')) + "\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
            .starts_with("HTTP/1.1 413"));
  site.raw(head + digest_of("xyz") + "\r\nContent-Length: 3\r\n\r\nxy", 100ms);
  CHECK(site.raw(head + digest_of("xyz") +
                 "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nxyz\r\n0\r\n\r\n")
            .starts_with("HTTP/1.1 200"));
  site.stop();
  CHECK(files_of(site) == before + 1);
  CHECK(store::read_blob(*site.blobs, "log/a", 10).value() == "xyz");
}

TEST_CASE("a full disk is 507, and nothing of the blob stays") {
  const store::test::small_disk disk{"1m"};
  if (!disk.mounted()) return;
  auto blobs = store::directory_blob_store::open_dir(disk / "cache").value();
  cache_site site{[&](auto& c) { c.blobs = blobs.get(); }};
  const auto before = store::test::entries_below(disk);
  CHECK(status_of(put_blob(site, "log/a", noise(3'000'000))) == 507);
  CHECK(store::test::entries_below(disk) == before);
  CHECK(status_of(put_blob(site, "log/a", "small")) == 200);
}

TEST_CASE("machines put so many blobs at once, and clients' uploads are counted apart") {
  cache_site site{[](auto& c) { c.limits.node_puts_max = 1; }};
  const auto head = "PUT /blobs/log/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nContent-Digest: " + digest_of("") +
                    "\r\nAuthorization: Bearer " + site.open(role::node).value() + "\r\n\r\n";
  int status = 0;
  for (int i = 0; i < 100 && status != 503; ++i) {
    // whichever comes second is refused: again until that is ours
    const int fd = site.connect();
    REQUIRE(::send(fd, head.data(), head.size(), 0) > 0);
    std::this_thread::sleep_for(20ms);
    status = status_of(put_blob(site, "log/b", "b"));
    if (status == 503) {
      auto s = source_sample("s", "x");
      CHECK(site.put("source/" + s.path.base_name(), s.exported)->status == 200);
    }
    ::close(fd);
  }
  CHECK(status == 503);
}

TEST_CASE("blobs are listed by prefix, a line each, and only those that have keys") {
  cache_site site;
  const auto node = bearing(site.open(role::node).value());
  fs::create_directories(site.dir.path / "blobs/attempts");
  for (int i = 0; i < 3000; ++i)
    write_file(site.dir.path / "blobs/attempts" / (std::to_string(10'000 + i) + "-" + std::string(30, 'x')), "12");
  write_file(site.dir.path / "secret", "secret");
  write_file(site.dir.path / "blobs" / ".hidden", "secret");
  auto c = site.client();
  c.set_keep_alive(true);
  const auto all = c.Get("/blobs?prefix=attempts/", node);
  REQUIRE(all);
  CHECK(std::count(all->body.begin(), all->body.end(), '\n') == 3000);
  CHECK(c.Get("/blobs?prefix=attempts/10007", node)->body == "2 attempts/10007-" + std::string(30, 'x') + "\n");
  CHECK(c.Get("/blobs?prefix=nar/", node)->body.empty());
  CHECK(c.Get("/blobs?prefix=nix", node)->body == "51 nix-cache-info\n");
  CHECK(c.Get("/blobs", node)->body.find("secret") == std::string::npos);
  for (auto* prefix : {"../", "..", ".", "/", "a/../../b", "a//", "%00", ".tmp/"})
    CHECK(status_of(c.Get("/blobs?prefix=" + std::string{prefix}, node)) == 422);
}

TEST_CASE("the rest of a blob is given only if it is still the one asked for") {
  cache_site site;
  REQUIRE(site.blobs->put("nar/a.0.nar.zst", "0123456789"));
  auto c = site.client();
  const auto path = "/nar/a.0.nar.zst";
  const auto etag = c.Get(path)->get_header_value("ETag");
  CHECK(etag.size() > 2);
  CHECK(c.Head(path)->get_header_value("ETag") == etag);
  const auto rest = c.Get(path, {{"If-Match", etag}, {"Range", "bytes=7-"}});
  CHECK(rest->status == 206);
  CHECK(rest->body == "789");
  CHECK(c.Get(path, {{"If-Range", etag}, {"Range", "bytes=7-"}})->status == 206);
  REQUIRE(site.blobs->put("nar/a.0.nar.zst", "abcdefghij"));
  CHECK(c.Get(path, {{"If-Match", etag}, {"Range", "bytes=7-"}})->status == 412);
  CHECK(c.Get(path, {{"If-Match", "*"}, {"Range", "bytes=7-"}})->body == "hij");
  CHECK(c.Get(path, {{"If-Range", etag}, {"Range", "bytes=7-"}})->body == "abcdefghij");
}
