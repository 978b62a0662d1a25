#include "tests/support/tcp_proxy.hpp"
#include "tests/unit/actors/http_blobs_fixture.hpp"

#include <thread>

using namespace coppice;
using namespace coppice::test;

namespace {

using way = tcp_proxy::way;
using act = tcp_proxy::act;

/// A site, a network, and a machine beyond it.
struct network {
  explicit network(
      const std::function<void(actors::cache_server_state::config&)>& server = [](auto&) {},
      const member::change& client = [](auto&) {})
      : site(server), me(site, over(proxy, client)) {}
  cache_site site;
  tcp_proxy proxy{site.port.value};
  member me;

  expected<void> write(const std::string& key, std::string_view bytes) {
    auto writer = me->begin();
    if (!writer) return tl::unexpected(writer.error());
    return (*writer)->write(bytes).and_then([&] { return (*writer)->commit(key); });
  }
  /// Files of the store, those being written included.
  std::size_t files() const {
    std::size_t n = 0;
    for (auto& e : fs::recursive_directory_iterator{site.dir.path / "blobs"})
      n += e.is_regular_file();
    return n;
  }
};

member::change patience(std::chrono::milliseconds silence) {
  return [silence](auto& o) {
    o.limits.patience.silence_max = o.limits.patience.answer_max = silence;
    o.limits.tries_max = 2;
    o.limits.barren_max = 1;
  };
}

expected<std::string> read(store::blob_store& blobs, const std::string& key) {
  return store::read_blob(blobs, key, 1 << 30);
}

ec code_of(const expected<void>& e) {
  return e ? ec::none : e.error().code;
}

template <class Until>
void wait_until(Until until) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (!until() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(5ms);
  REQUIRE(until());
}

} // namespace

TEST_CASE("reading goes on where it was cut, over another connection") {
  network n;
  const auto bytes = noise(8'000'000);
  REQUIRE(n.site.blobs->put("log/x", bytes));
  for (std::uint64_t after : {3'000'000, 1'000'000, 100'000})
    n.proxy.next({way::down, after, act::cut});
  CHECK(read(*n.me.blobs, "log/x").value() == bytes);
  CHECK(n.proxy.connections() == 4);
  CHECK(n.proxy.down() < bytes.size() * 5 / 4); // what was on its way when it was cut comes again
}

TEST_CASE("what was replaced or removed while its reading was cut is not mixed with what it was") {
  network n;
  const auto bytes = noise(20'000'000);
  REQUIRE(n.site.blobs->put("log/x", bytes));
  n.proxy.next({way::down, 2'000'000, act::cut});
  auto reader = n.me->open("log/x").value();
  std::string block(100'000, '\0');
  REQUIRE(reader->read(0, block).value() == block.size());
  CHECK(block == bytes.substr(0, block.size()));
  std::string all(bytes.size(), '\0');
  SECTION("replaced") {
    REQUIRE(n.site.blobs->put("log/x", noise(20'000'000)));
    CHECK(reader->read(0, all).error().code == ec::conflict);
  }
  SECTION("removed") {
    REQUIRE(n.site.blobs->remove("log/x"));
    CHECK(reader->read(0, all).error().code == ec::missing);
  }
}

TEST_CASE("a blob whose sending was cut is sent again, and is not seen before") {
  network n;
  const auto bytes = noise(5'000'000);
  n.proxy.next({way::up, 2'000'000, act::cut});
  REQUIRE(n.write("log/x", bytes));
  CHECK(n.site.blobs->stat("log/x").value() == bytes.size());
  CHECK(read(*n.site.blobs, "log/x").value() == bytes);
  CHECK(n.proxy.connections() == 2);
}

TEST_CASE("a blob whose sending is always cut is not stored, and leaves nothing on either side") {
  network n;
  const auto before = n.files();
  n.proxy.always(tcp_proxy::fault{way::up, 500'000, act::cut});
  CHECK(code_of(n.write("log/x", noise(2'000'000))) == ec::unavailable);
  CHECK(n.proxy.connections() == 3);
  n.site.stop(); // its handlers have ended then
  CHECK(n.files() == before);
  CHECK(fs::is_empty(n.site.dir.path / "scratch"));
}

TEST_CASE("a put whose answer was lost is repeated, and there once") {
  network n;
  n.proxy.next({way::down, 10, act::cut});
  REQUIRE(n.me->put("log/x", "bytes"));
  CHECK(n.proxy.connections() == 2);
  CHECK(read(*n.me.blobs, "log/x").value() == "bytes");
}

TEST_CASE("a byte that is flipped on its way to the store is noticed and sent again") {
  network n;
  const auto bytes = noise(1'000'000);
  const auto before = n.files();
  n.proxy.next({way::up, 500'000, act::flip});
  REQUIRE(n.write("log/x", bytes));
  CHECK(read(*n.site.blobs, "log/x").value() == bytes);
  n.proxy.always(tcp_proxy::fault{way::up, 500'000, act::flip, true});
  member other{n.site, over(n.proxy, [&](auto& o) { o.scratch_dir = n.site.dir.path / "other"; })};
  auto writer = other->begin().value();
  REQUIRE(writer->write(bytes));
  CHECK(code_of(writer->commit("log/y")) == ec::corrupt);
  CHECK(n.files() == before + 1);
}

TEST_CASE("many requests go over one connection") {
  network n;
  for (int i = 0; i < 5; ++i) {
    const auto key = "log/" + std::to_string(i);
    const auto bytes = noise(300'000);
    REQUIRE(n.write(key, bytes));
    CHECK(n.me->stat(key).value() == bytes.size());
    CHECK(read(*n.me.blobs, key).value() == bytes);
    REQUIRE(n.me->list("", [](auto&, auto) { return true; }));
    REQUIRE(n.me->remove(key));
    CHECK(n.me->open(key).error().code == ec::missing);
  }
  CHECK(n.proxy.connections() == 1);
  CHECK(n.me.tickets_first == 1);
  CHECK(n.me.tickets_refused == 0);
}

TEST_CASE("another ticket is asked for once the old one is over, also by many threads at once") {
  network n;
  REQUIRE(n.me->put("log/x", "1"));
  n.site.clock.advance(10min);
  REQUIRE(n.me->put("log/x", "2"));
  CHECK(n.me.tickets_first == 1);
  CHECK(n.me.tickets_refused == 1);
  n.site.clock.advance(10min);
  std::atomic<int> done{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] { done += n.me->put("log/" + std::to_string(i), "3").has_value(); });
  for (auto& t : threads)
    t.join();
  CHECK(done == 8);
  CHECK(n.me.tickets_refused == 2);
}

TEST_CASE("a ticket that ends while a blob is read or sent does not harm it") {
  network n;
  const auto bytes = noise(8'000'000);
  REQUIRE(n.site.blobs->put("log/x", bytes));
  n.proxy.next({way::down, 2'000'000, act::cut});
  auto reader = n.me->open("log/x").value();
  n.site.clock.advance(10min);
  std::string all(bytes.size(), '\0');
  CHECK(reader->read(0, all).value() == bytes.size());
  CHECK(all == bytes);
  auto writer = n.me->begin().value();
  REQUIRE(writer->write(bytes));
  n.site.clock.advance(10min);
  REQUIRE(writer->commit("log/y"));
  CHECK(n.me.tickets_refused == 2);
}

TEST_CASE("who is no machine of the farm is refused, and its errors are told as they are") {
  cache_site site;
  for (auto r : {role::submitter, role::admin}) {
    int asked = 0;
    member me{site, [&](auto& o) {
                o.ticket = [&](bool) {
                  ++asked;
                  return site.open(r);
                };
              }};
    CHECK(code_of(me->put("log/x", "x")) == ec::forbidden);
    CHECK(asked == 2);
    CHECK(me->open("log/x").error().code == ec::forbidden);
    CHECK(code_of(me->list("", [](auto&, auto) { return true; })) == ec::forbidden);
  }
  member lost{site, [](auto& o) { o.ticket = [](bool) { return fail(ec::peer_down, "no hub"); }; }};
  CHECK(code_of(lost->put("log/x", "x")) == ec::peer_down);
  member homeless{site, [](auto& o) { o.url = [] { return fail(ec::congested, "no hub"); }; }};
  CHECK(homeless->stat("log/x").error().code == ec::congested);
}

TEST_CASE("what binary caches show is not for machines to write") {
  network n;
  CHECK(code_of(n.me->put("7c0qdvsd3w3f7x4n0kzmd5yp0y2nvmxk.narinfo", "x")) == ec::forbidden);
  CHECK(code_of(n.me->remove("nix-cache-info")) == ec::forbidden);
  CHECK(n.site.blobs->stat("nix-cache-info").value());
}

TEST_CASE("a NAR and a closure are stored under the key that follows from their bytes, and no other") {
  network n;
  const auto bytes = noise(10'000);
  const blob_id id{nix::sha256(bytes)}, other{nix::sha256("other")};
  for (auto& key : {store::nar_key(id, {1}), store::closure_key(id, {1})}) {
    REQUIRE(n.write(key, bytes));
    CHECK(read(*n.site.blobs, key).value() == bytes);
  }
  for (auto& key : {store::nar_key(other, {1}), store::closure_key(other, {1}), std::string{"nar/x"}}) {
    CHECK(code_of(n.write(key, bytes)) == ec::invalid);
    CHECK_FALSE(n.site.blobs->stat(key).value());
  }
}

TEST_CASE("a server that says nothing is given up, and does not hold up the end") {
  network n{[](auto&) {}, patience(300ms)};
  REQUIRE(n.site.blobs->put("log/x", noise(1'000'000)));
  n.proxy.always(tcp_proxy::fault{way::down, 0, act::hold});
  CHECK(n.me->stat("log/x").error().code == ec::unavailable);
  CHECK(n.proxy.connections() == 2);
  CHECK(code_of(n.me->put("log/y", "y")) == ec::unavailable);
  n.proxy.next({way::down, 500'000, act::hold});
  CHECK(read(*n.me.blobs, "log/x").error().code == ec::unavailable);
}

TEST_CASE("a server that only trickles is given up") {
  network n{[](auto&) {}, patience(500ms)};
  REQUIRE(n.site.blobs->put("log/x", noise(1'000'000)));
  n.proxy.always(tcp_proxy::fault{way::down, 300, act::drip});
  const auto e = read(*n.me.blobs, "log/x").error();
  CHECK(e.code == ec::unavailable);
  CHECK(e.what.find("slower than 1024 bytes per second") != std::string::npos);
}

TEST_CASE("a reader may take its time: the server's patience costs it a connection, not the blob") {
  network n{[](auto& c) { c.limits.stall_max = 100ms; }, patience(5s)};
  const auto bytes = noise(80'000'000); // more than the sockets in between hold
  REQUIRE(n.site.blobs->put("log/x", bytes));
  auto reader = n.me->open("log/x").value();
  std::string all(bytes.size(), '\0');
  for (std::size_t at = 0, step = 20'000'000; at < all.size(); at += step) {
    std::this_thread::sleep_for(300ms); // the server loses patience
    REQUIRE(reader->read(at, std::span{all}.subspan(at, step)).value() == step);
  }
  CHECK(all == bytes);
  CHECK(n.proxy.connections() > 1);
}

TEST_CASE("the store's node may be gone, and come back with another address and other tickets") {
  network n;
  const auto bytes = noise(8'000'000);
  REQUIRE(n.site.blobs->put("log/x", bytes));
  std::mutex mutex;
  std::string url = n.site.url;
  member me{n.site, [&](auto& o) {
              o.scratch_dir = n.site.dir.path / "other";
              o.limits.retry_delay = 100ms;
              o.limits.barren_max = 100;
              o.limits.cuts_max = 100;
              o.url = [&]() -> expected<std::string> {
                std::lock_guard lock{mutex};
                return url;
              };
            }};
  auto reader = me->open("log/x").value();
  n.site.stop();
  CHECK(code_of(me->put("log/y", "y")) == ec::unavailable);
  std::string all(bytes.size(), '\0');
  std::thread back{[&] {
    n.site.port.value = 0;
    n.site.start();
    std::lock_guard lock{mutex};
    url = n.site.url;
  }};
  CHECK(reader->read(0, all).value() == bytes.size());
  back.join();
  CHECK(all == bytes);
  REQUIRE(me->put("log/y", "y"));
  CHECK(me.tickets_refused >= 1);
}

TEST_CASE("stopping ends what is under way and what comes after") {
  network n;
  REQUIRE(n.site.blobs->put("log/x", noise(1'000'000)));
  n.proxy.always(tcp_proxy::fault{way::down, 500'000, act::hold});
  std::thread later{[&] {
    wait_until([&] { return n.proxy.down() >= 400'000; });
    n.me.stop = true;
  }};
  CHECK(read(*n.me.blobs, "log/x").error().code == ec::shutdown);
  later.join();
  CHECK(code_of(n.me->put("log/y", "y")) == ec::shutdown);
}

TEST_CASE("a store that has no room, or is in trouble, is told as such") {
  class troubled final : public store::blob_store {
  public:
    class writer final : public store::blob_writer {
    public:
      explicit writer(ec code) : code_(code) {}
      expected<void> write(std::string_view) override { return fail(code_, "as the test wants it"); }
      expected<void> commit(const std::string&) override { return fail(code_, "as the test wants it"); }

    private:
      ec code_;
    };
    expected<std::unique_ptr<store::blob_writer>> begin() override { return std::make_unique<writer>(code); }
    expected<void> put(const std::string&, std::string_view) override { return fail(code, ""); }
    expected<void> put_all(const std::vector<std::pair<std::string, std::string>>&) override { return fail(code, ""); }
    expected<std::unique_ptr<store::blob_reader>> open(const std::string&) override { return fail(code, ""); }
    expected<std::optional<std::uint64_t>> stat(const std::string&) override { return fail(code, ""); }
    expected<void> remove(const std::string&) override { return fail(code, "as the test wants it"); }
    expected<void> list(std::string_view, const std::function<bool(const std::string&, std::uint64_t)>&) override {
      return fail(code, "");
    }
    ec code = ec::storage_full;
  } store;
  network n{[&](auto& c) { c.blobs = &store; }};
  for (auto size : {std::size_t{0}, std::size_t{10}, std::size_t{20'000'000}}) {
    const auto put = n.write("log/x", std::string(size, 'x'));
    CHECK(code_of(put) == ec::storage_full);
    CHECK(put.error().what.find("as the test wants it") != std::string::npos);
  }
  store.code = ec::io;
  CHECK(code_of(n.me->put("log/x", "x")) == ec::io);
  CHECK(code_of(n.me->remove("log/x")) == ec::io);
  CHECK(n.me->open("log/x").error().code == ec::io);
  CHECK(n.me->stat("log/x").error().code == ec::io);
  CHECK(code_of(n.me->list("log/", [](auto&, auto) { return true; })) == ec::unavailable);
}

TEST_CASE("a machine that read other bytes than it should cannot make the farm lose good ones") {
  network n;
  const auto bytes = noise(100'000);
  const auto key = store::nar_key(blob_id{nix::sha256(bytes)}, {1});
  REQUIRE(n.write(key, bytes));
  CHECK(code_of(n.me->remove(key)) == ec::conflict);
  CHECK(n.site.blobs->stat(key).value() == bytes.size());
  auto spoilt = bytes;
  spoilt[70'000] = static_cast<char>(spoilt[70'000] ^ 4);
  write_file(n.site.dir.path / "blobs" / key, spoilt);
  REQUIRE(n.me->remove(key));
  CHECK_FALSE(n.site.blobs->stat(key).value());
  REQUIRE(n.me->remove(key));
}
