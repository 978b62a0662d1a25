#include "tests/unit/actors/cache_server_fixture.hpp"

#include <atomic>
#include <thread>

using namespace coppice;
using namespace coppice::test;

namespace {

const std::string hash_part = "7c0qdvsd3w3f7x4n0kzmd5yp0y2nvmxk";
const std::string drv_name = hash_part + "-hello.drv";

std::string header(const httplib::Result& r, const char* name) {
  return r->get_header_value(name);
}

/// The status in a raw answer, 0 if there is none.
int status_in(const std::string& raw) {
  return raw.size() > 12 ? std::atoi(raw.c_str() + 9) : 0;
}

} // namespace

TEST_CASE("the cache introduces itself as Nix wants it") {
  cache_site site;
  auto r = site.client().Get("/nix-cache-info");
  REQUIRE(r);
  CHECK(r->status == 200);
  CHECK(r->body == "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
  CHECK(header(r, "Content-Type") == "text/x-nix-cache-info");
  CHECK(header(r, "Content-Length") == std::to_string(r->body.size()));
}

TEST_CASE("narinfos and NARs are served with their types and lengths, HEAD without the bytes") {
  cache_site site;
  auto nar = noise(3'000'000);
  REQUIRE(site.blobs->put("nar/abc.0.nar.zst", nar));
  const std::string narinfo = "StorePath: x\nURL: nar/abc.0.nar.zst\nCompression: zstd\n";
  REQUIRE(site.blobs->put(hash_part + ".narinfo", narinfo));
  auto c = site.client();
  c.set_keep_alive(true);
  for (auto [path, type, bytes] :
       {std::tuple{"/nar/abc.0.nar.zst", "application/x-nix-nar", nar},
        std::tuple{"/7c0qdvsd3w3f7x4n0kzmd5yp0y2nvmxk.narinfo", "text/x-nix-narinfo", narinfo}}) {
    auto got = c.Get(path, {{"Accept-Encoding", "br, gzip"}});
    REQUIRE(got);
    CHECK(got->status == 200);
    CHECK(got->body == bytes);
    CHECK(header(got, "Content-Type") == type);
    CHECK(header(got, "Content-Length") == std::to_string(bytes.size()));
    CHECK_FALSE(got->has_header("Content-Encoding"));
    auto head = c.Head(path);
    REQUIRE(head);
    CHECK(head->status == 200);
    CHECK(head->body.empty());
    CHECK(header(head, "Content-Length") == std::to_string(bytes.size()));
    CHECK(header(head, "Content-Type") == type);
  }
}

TEST_CASE("a narinfo whose NAR the store has lost is not served") {
  cache_site site;
  for (auto* text : {"StorePath: x\nURL: nar/abc.0.nar.zst\nCompression: zstd\n", "StorePath: x\n"}) {
    REQUIRE(site.blobs->put(hash_part + ".narinfo", text));
    CHECK(site.client().Get("/" + hash_part + ".narinfo")->status == 404);
    CHECK(site.client().Head("/" + hash_part + ".narinfo")->status == 404);
  }
}

TEST_CASE("an empty blob is served as such") {
  cache_site site;
  REQUIRE(site.blobs->put("log/" + drv_name, ""));
  auto r = site.client().Get("/log/" + drv_name);
  REQUIRE(r);
  CHECK(r->status == 200);
  CHECK(header(r, "Content-Length") == "0");
}

TEST_CASE("what is not there, or nobody's business, is 404 by GET and HEAD") {
  cache_site site;
  REQUIRE(site.blobs->put("closures/secret.0", "x"));
  write_file(site.dir.path / "logs" / "other.log", "x");
  auto c = site.client();
  for (auto& path : std::vector<std::string>{"/", "/nar/", "/nar", "/nar/none.nar.zst", "/" + hash_part + ".narinfo",
                                             "/short.narinfo", "/log/" + drv_name, "/log/x", "/closures/secret.0",
                                             "/attempt/other", "/attempt/", "/attempt/" + std::string(64, 'a') + "-1",
                                             "/attempt/" + std::string(64, 'a') + "-01", "/upload/source/" + drv_name,
                                             "/realisations/x.doi", "/logs/other.log"}) {
    INFO(path);
    auto got = c.Get(path);
    REQUIRE(got);
    CHECK(got->status == 404);
    auto head = c.Head(path);
    REQUIRE(head);
    CHECK(head->status == 404);
  }
}

TEST_CASE("no hostile path gets out of the store or breaks the server") {
  cache_site site;
  write_file(site.dir.path / "secret", "secret");
  write_file(site.dir.path / "blobs" / ".hidden", "secret");
  auto deep = std::string(10'000, 'a'), dots = std::string{};
  for (int i = 0; i < 1000; ++i)
    dots += "../";
  for (std::string path :
       {std::string{"/nar/../../secret"}, std::string{"/nar/%2e%2e/%2e%2e/secret"},
        std::string{"/nar/..%2f..%2fsecret"}, std::string{"/../secret"}, std::string{"//secret"},
        std::string{"/nar/.hidden"}, std::string{"/log/%2e%2e"}, std::string{"/nar/a%00b"},
        std::string{"/nar/a%0d%0aX-Evil:%201"}, std::string{"/nar/%ff%fe"}, std::string{"/attempt/../secret"},
        std::string{"/attempt/..%2fsecret-1"}, "/nar/" + deep, "/" + dots, "/nar/" + dots, std::string{"/nar/%"},
        std::string{"/nar/%zz"}, std::string{"*"}, std::string{"/nar/a?b?c"}}) {
    INFO(path.substr(0, 100));
    auto answer = site.raw("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    CHECK(status_in(answer) >= 400);
    CHECK(status_in(answer) < 500);
    CHECK(answer.find("secret") == std::string::npos);
    CHECK(answer.find("X-Evil") == std::string::npos);
  }
  auto nul = std::string{"GET /nar/a"} + '\0' + "b HTTP/1.1\r\nHost: x\r\n\r\n";
  CHECK(status_in(site.raw(nul)) == 400);
  CHECK(site.client().Get("/nix-cache-info")->status == 200);
}

TEST_CASE("requests that are no requests end the connection, not the server") {
  cache_site site;
  auto line = "GET /nix-cache-info HTTP/1.1\r\n";
  CHECK(status_in(site.raw("nonsense\r\n\r\n")) == 400);
  CHECK(status_in(site.raw(line + ("X: " + std::string(100'000, 'x')) + "\r\n\r\n")) == 400);
  std::string many = line;
  for (int i = 0; i < 10'000; ++i)
    many += "A: b\r\n";
  CHECK(status_in(site.raw(many + "\r\n")) == 400);
  std::string ranges = line + std::string{"Range: bytes=0-1"};
  for (int i = 0; i < 2'000; ++i)
    ranges += ",1-2";
  CHECK(status_in(site.raw(ranges + "\r\nConnection: close\r\n\r\n")) > 0);
  CHECK(status_in(site.raw("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")) == 405);
  CHECK(status_in(site.raw("PUT /upload/source/x HTTP/1.1\r\n\r\n")) == 411);
  CHECK(status_in(site.raw("PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")) == 400);
  CHECK(status_in(site.raw("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n")) == 400);
  CHECK(site.client().Get("/nix-cache-info")->status == 200);
}

TEST_CASE("the body of a request that wants none is not taken for the next request") {
  cache_site site;
  auto inner = std::string{"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n"};
  auto answer = site.raw("GET /nope HTTP/1.1\r\nContent-Length: " + std::to_string(inner.size()) + "\r\n\r\n" + inner);
  CHECK(status_in(answer) == 404);
  CHECK(answer.find("StoreDir") == std::string::npos);
}

TEST_CASE("requests sent at once over one connection are all answered") {
  cache_site site;
  auto one = std::string{"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n"};
  auto answer = site.raw(one + one + "GET /nix-cache-info HTTP/1.1\r\nConnection: close\r\n\r\n");
  std::size_t count = 0;
  for (auto at = answer.find("StoreDir"); at != std::string::npos; at = answer.find("StoreDir", at + 1))
    ++count;
  CHECK(count == 3);
}

TEST_CASE("a part of a NAR is served as asked, and 416 tells the size") {
  cache_site site;
  auto nar = noise(1'000'000);
  REQUIRE(site.blobs->put("nar/abc.0.nar.zst", nar));
  auto get = [&](const char* range) { return site.client().Get("/nar/abc.0.nar.zst", {{"Range", range}}); };
  auto middle = get("bytes=100000-299999");
  REQUIRE(middle);
  CHECK(middle->status == 206);
  CHECK(middle->body == nar.substr(100'000, 200'000));
  CHECK(header(middle, "Content-Range") == "bytes 100000-299999/1000000");
  CHECK(header(middle, "Content-Length") == "200000");
  CHECK(get("bytes=999999-")->body == nar.substr(999'999));
  CHECK(get("bytes=-10")->body == nar.substr(999'990));
  CHECK(get("bytes=0-1,5-6")->status == 200);
  auto past = get("bytes=1000000-");
  CHECK(past->status == 416);
  CHECK(header(past, "Content-Range") == "bytes */1000000");
  CHECK(site.client().Get("/nar/abc.0.nar.zst", {{"Range", "bytes=0-1"}, {"If-Range", "\"x\""}})->status == 200);
}

TEST_CASE("a log can be followed while it grows and read once it is in the store") {
  cache_site site;
  inhash key;
  key.bytes.fill(0x1f);
  auto name = key.to_string() + "-7", url = "/attempt/" + name;
  auto file = site.dir.path / "logs" / (name + ".log");
  auto from = [&](std::size_t n) { return site.client().Get(url, {{"Range", "bytes=" + std::to_string(n) + "-"}}); };
  write_file(file, "one\n");
  auto first = site.client().Get(url);
  REQUIRE(first);
  CHECK(first->status == 200);
  CHECK(first->body == "one\n");
  CHECK(header(first, "X-Coppice-Log") == "running");
  CHECK(header(first, "Content-Type") == "text/plain; charset=utf-8");
  auto none = from(4);
  CHECK(none->status == 416);
  CHECK(header(none, "Content-Range") == "bytes */4");
  CHECK(header(none, "X-Coppice-Log") == "running");
  write_file(file, "two\n", std::ios::app);
  CHECK(from(4)->body == "two\n");
  REQUIRE(site.blobs->put(store::attempt_log_key(key, fence{7}), "one\ntwo\n"));
  fs::remove(file);
  auto over = from(8);
  CHECK(over->status == 416);
  CHECK(header(over, "X-Coppice-Log") == "finished");
  CHECK(from(4)->body == "two\n");
}

namespace {

/// The server of another machine, as those that ask over the wire see it.
class distant_tickets {
public:
  using interface = tickets_actor;
  static constexpr const char* name = "distant-tickets";
  distant_tickets(rt::self<interface>*, std::string url) : url_(std::move(url)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::open_atom, const get_ticket&) { return upload_ticket{url_, "ticket"}; }};
  }

private:
  std::string url_;
};

/// A farm of two: the ledger of `hub` knows of one attempt, which runs on `elm`.
struct two_sites {
  cache_site elm;
  tickets_actor tickets;
  std::atomic<int> asked{0}; ///< times that elm was
  cache_site hub{[this](auto& c) {
    c.node = {"hub"};
    c.limits.logs_passed_on_max = 2;
    c.cache_of = [this](const node_id& node) {
      if (node.value == "elm") ++asked;
      return tickets;
    };
  }};
  inhash key;
  fence token;
  two_sites() {
    // loopback, by a name that does not say so
    tickets = rt::spawn<distant_tickets>(hub.system, "http://2130706433" + elm.url.substr(elm.url.rfind(':')));
    key.bytes.fill(0x1f);
    const auto drv = nix::store_path::from_base_name(drv_name).value();
    request_id request;
    request.bytes.fill(1);
    session_id session;
    session.bytes.fill(2);
    request_body body;
    body.roots = {{drv, {"out"}}};
    body.closure.bytes.fill(3);
    const auto tell = [this](auto t) { return hub.book.run(std::move(t)).value(); };
    tell(ledger::open_session{{"elm"}, {1}, session});
    tell(ledger::submit{request, "alice", body});
    const auto epoch = std::get<ledger::owned>(tell(ledger::adopt{request, session})).epoch;
    const auto queued = std::get<ledger::granted>(tell(ledger::acquire{key, drv, request, epoch, {session, {}}})).token;
    token = std::get<ledger::granted>(tell(ledger::start{key, queued, {session, {}}, {"elm"}})).token;
  }
  ~two_sites() { rt::send_exit(caf::actor_cast<caf::strong_actor_ptr>(tickets), caf::exit_reason::user_shutdown); }
  std::string page() const { return "/attempt/" + key.to_string() + "-" + std::to_string(token.value); }
  fs::path log() const { return elm.dir.path / "logs" / (page().substr(9) + ".log"); }
};

} // namespace

TEST_CASE("a log that another machine writes is passed on as it is there") {
  two_sites farm;
  const auto text = noise(1'000'000);
  write_file(farm.log(), text);
  auto c = farm.hub.client();
  c.set_keep_alive(true);
  auto all = c.Get(farm.page());
  REQUIRE(all);
  CHECK(all->status == 200);
  CHECK(all->body == text);
  CHECK(header(all, "X-Coppice-Log") == "running");
  CHECK(farm.asked == 1);
  CHECK(header(c.Head(farm.page()), "Content-Length") == "1000000");
  auto rest = c.Get(farm.page(), {{"Range", "bytes=999990-"}});
  CHECK(rest->status == 206);
  CHECK(rest->body == text.substr(999'990));
  CHECK(header(rest, "Content-Range") == "bytes 999990-999999/1000000");
  CHECK(c.Get(farm.page(), {{"Range", "bytes=1000000-"}})->status == 416);
  // who reads slowly holds a place, and no more of the log than some buffers
  std::vector<int> slow;
  write_file(farm.log(), noise(30'000'000));
  for (int i = 0; i < 2; ++i) {
    slow.push_back(farm.hub.connect());
    const auto request = "GET " + farm.page() + " HTTP/1.1\r\nHost: x\r\n\r\n";
    REQUIRE(::send(slow.back(), request.data(), request.size(), 0) > 0);
    char first;
    REQUIRE(::recv(slow.back(), &first, 1, 0) == 1);
  }
  CHECK(c.Get(farm.page())->status == 503);
  for (auto s : slow)
    ::close(s);
  for (auto end = std::chrono::steady_clock::now() + 20s; c.Get(farm.page(), {{"Range", "bytes=0-0"}})->status == 503;)
    REQUIRE(std::chrono::steady_clock::now() < end);
}

TEST_CASE("a log that no machine has, or one that does not answer, is said so") {
  two_sites farm;
  auto c = farm.hub.client();
  CHECK(c.Get(farm.page())->status == 404);
  CHECK(farm.asked == 1);
  CHECK(c.Get(farm.page() + "0")->status == 404);
  CHECK(farm.asked == 1);
  farm.elm.stop();
  auto away = c.Get(farm.page());
  CHECK(away->status == 503);
  CHECK(away->body.find("does not answer") != std::string::npos);
}

TEST_CASE("a log that is a symbolic link or a pipe is not served") {
  cache_site site;
  auto name = std::string(64, 'a') + "-1";
  write_file(site.dir.path / "secret", "secret");
  fs::create_symlink(site.dir.path / "secret", site.dir.path / "logs" / (name + ".log"));
  CHECK(site.client().Get("/attempt/" + name)->status == 404);
  auto pipe = std::string(64, 'a') + "-2";
  REQUIRE(::mkfifo((site.dir.path / "logs" / (pipe + ".log")).c_str(), 0600) == 0);
  CHECK(site.client().Get("/attempt/" + pipe)->status == 404);
}

TEST_CASE("readers in parallel get their bytes while others read slowly or not at all") {
  cache_site site;
  auto nar = noise(8'000'000);
  REQUIRE(site.blobs->put("nar/abc.0.nar.zst", nar));
  std::vector<int> slow;
  for (int i = 0; i < 4; ++i) {
    slow.push_back(site.connect());
    std::string request = "GET /nar/abc.0.nar.zst HTTP/1.1\r\n\r\n";
    REQUIRE(::send(slow.back(), request.data(), request.size(), 0) > 0);
    slow.push_back(site.connect()); // says nothing
  }
  std::atomic<int> right{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 16; ++i)
    readers.emplace_back([&] {
      auto r = site.client().Get("/nar/abc.0.nar.zst");
      if (r && r->status == 200 && r->body == nar) ++right;
    });
  for (auto& t : readers)
    t.join();
  CHECK(right == 16);
  for (int fd : slow)
    ::close(fd);
}

TEST_CASE("a server whose connections are all taken serves on by closing an idle one") {
  cache_site site{[](auto& c) { c.limits.connections_max = 3; }};
  std::vector<int> idle;
  for (int i = 0; i < 3; ++i)
    idle.push_back(site.connect());
  auto r = site.client().Get("/nix-cache-info");
  REQUIRE(r);
  CHECK(r->status == 200);
  for (int fd : idle)
    ::close(fd);
}

TEST_CASE("a client that stalls is cut off, in the request and in the answer") {
  cache_site site{[](auto& c) { c.limits.stall_max = 300ms, c.limits.idle_max = 300ms; }};
  REQUIRE(site.blobs->put("nar/abc.0.nar.zst", noise(32'000'000)));
  auto cut_off = [&](std::string_view request) {
    int fd = site.connect();
    REQUIRE(::send(fd, request.data(), request.size(), 0) > 0);
    std::this_thread::sleep_for(1s);
    auto all = site.receive(fd, 1500ms);
    char byte;
    auto n = ::recv(fd, &byte, 1, MSG_DONTWAIT);
    ::close(fd);
    return n == 0 || (n < 0 && errno != EAGAIN) ? all.size() : SIZE_MAX;
  };
  CHECK(cut_off("GET /nix-ca") < 1000);
  CHECK(cut_off("GET /nar/abc.0.nar.zst HTTP/1.1\r\n\r\n") < 32'000'000);
}

TEST_CASE("a successor listens at the same port, and an end does not wait for clients") {
  cache_site site{[](auto& c) { c.limits.idle_max = c.limits.stall_max = 60s; }};
  REQUIRE(site.blobs->put("nar/abc.0.nar.zst", noise(32'000'000)));
  int idle = site.connect(), slow = site.connect();
  std::string request = "GET /nar/abc.0.nar.zst HTTP/1.1\r\n\r\n";
  REQUIRE(::send(slow, request.data(), request.size(), 0) > 0);
  REQUIRE(site.client().Get("/nix-cache-info"));
  auto before = std::chrono::steady_clock::now();
  auto url = site.url;
  site.stop();
  CHECK(std::chrono::steady_clock::now() - before < 2s);
  site.start();
  CHECK(site.url == url);
  CHECK(site.client().Get("/nix-cache-info")->status == 200);
  ::close(idle);
  ::close(slow);
}

TEST_CASE("a server that cannot listen dies at birth and says why") {
  cache_site site;
  caf::scoped_actor me{site.system};
  auto config = site.config;
  for (auto& [listen, why] : {std::pair<std::string, std::string>{site.url.substr(7), "Address already in use"},
                              {"127.0.0.1", "no port"},
                              {"127.0.0.1:99999999", "no port"},
                              {"127.0.0.1:", "no port"},
                              {"no-such-host.invalid:0", "cannot listen"}}) {
    config.listen = listen;
    config.port = nullptr;
    auto second = rt::spawn<actors::cache_server_state>(site.system, config, site.ledger);
    me->monitor(second);
    me->receive([&](caf::down_msg& d) { CHECK(rt::describe_reason(d.reason).find(why) != std::string::npos); });
  }
}
