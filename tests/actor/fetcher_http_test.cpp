#include "actors/build/fetcher.hpp"
#include "store/compression.hpp"
#include "tests/support/path_ledger.hpp"
#include "tests/support/tcp_proxy.hpp"
#include "tests/support/world.hpp"
#include "tests/unit/actors/http_blobs_fixture.hpp"
#include "tests/unit/store/tree_support.hpp"

using namespace coppice;
using namespace coppice::actors;

namespace {

using paths = std::vector<nix::store_path>;
using way = test::tcp_proxy::way;
using act = test::tcp_proxy::act;
using store::test::good;

/// A FETCHER on one machine, the farm's store on another, and the network in between.
struct far_farm {
  explicit far_farm(std::uint64_t seed = test::seed_or(1)) : w(seed) {
    store::local_store_options options;
    options.root = dir / "local";
    options.belongs_to = store::test::me();
    local = good(store::local_store::open(options));
    fetcher_state::config c;
    c.local = local.get();
    c.blobs = me.blobs.get();
    c.pool = &w.executor;
    c.clock = &w.clock;
    fetcher = w.spawn<fetcher_state>(c, fetcher_state::peers{w.spawn<test::path_ledger>(known)});
  }
  /// What the farm's store has, and the ledger knows.
  path_info stored(const std::string& name, const std::string& contents) {
    const auto nar = test::nar_of(contents);
    const auto blob = good(store::compress(nar));
    path_info info;
    info.path = store::test::path_named(name);
    info.nar_hash.bytes = nix::sha256(nar);
    info.nar_size = nar.size();
    info.blob.bytes = nix::sha256(blob);
    info.blob_size = blob.size();
    info.gen = {1};
    good(site.blobs->put(key_of(info), blob));
    known->emplace(info.path, info);
    return info;
  }
  static std::string key_of(const path_info& info) { return store::nar_key(info.blob, info.gen); }

  store::test::scratch_dir dir;
  std::unique_ptr<store::local_store> local;
  test::cache_site site;
  test::tcp_proxy proxy{site.port.value};
  test::member me{site, test::over(proxy)};
  test::path_ledger::rows known = std::make_shared<std::map<nix::store_path, path_info>>();
  test::world w; // its actors use the stores
  fetcher_actor fetcher;
};

} // namespace

TEST_CASE("an input whose fetch is cut is read on, and fetched once for all that want it at the same time") {
  far_farm f;
  const auto info = f.stored("input", test::noise(6'000'000));
  f.proxy.next({way::down, 2'000'000, act::cut});
  f.proxy.next({way::down, 1'000'000, act::cut});
  std::vector<decltype(f.w.begin(f.fetcher, atom::fetch_v, paths{}))> asked;
  for (int i = 0; i < 3; ++i)
    asked.push_back(f.w.begin(f.fetcher, atom::fetch_v, paths{info.path}));
  f.w.settle();
  for (auto& q : asked) {
    REQUIRE(q.answered());
    CHECK(good(q.get()).closure.at(0).path == info.path);
  }
  CHECK(f.proxy.connections() == 3);
  CHECK(f.proxy.down() < info.blob_size * 3 / 2);
  CHECK(good(f.w.ask(f.fetcher, atom::fetch_v, paths{info.path})).missing.empty());
  CHECK(f.proxy.connections() == 3);
}

TEST_CASE("an input that was spoilt on its way is fetched once more") {
  far_farm f;
  const auto info = f.stored("input", test::noise(1'000'000));
  f.proxy.next({way::down, 500'000, act::flip});
  CHECK(good(f.w.ask(f.fetcher, atom::fetch_v, paths{info.path})).missing.empty());
  CHECK(f.local->query(info.path));
  CHECK(f.proxy.down() > info.blob_size * 3 / 2);
}

TEST_CASE("an input that is spoilt in the farm's store is taken out of it, and told as missing") {
  far_farm f;
  const auto info = f.stored("input", test::noise(1'000'000)), sound = f.stored("sound", "sound");
  const auto file = f.site.dir.path / "blobs" / f.key_of(info);
  auto bytes = store::test::read(file);
  bytes[500'000] = static_cast<char>(bytes[500'000] ^ 1);
  test::write_file(file, bytes);
  const auto answer = good(f.w.ask(f.fetcher, atom::fetch_v, paths{info.path, sound.path}));
  CHECK(answer.missing == paths{info.path});
  CHECK(answer.why.find("the store has lost it") != std::string::npos);
  CHECK(f.proxy.down() > info.blob_size * 3 / 2); // twice, to be sure
  CHECK_FALSE(f.local->query(info.path));
  CHECK_FALSE(good(f.site.blobs->stat(f.key_of(info))));
  CHECK(f.known->size() == 1); // the ledger has heard that it is gone
}

TEST_CASE("a machine to which all comes spoilt fails by itself: the farm keeps what it has") {
  far_farm f;
  const auto info = f.stored("input", test::noise(1'000'000));
  f.proxy.always(test::tcp_proxy::fault{way::down, 500'000, act::flip, true});
  const auto answer = f.w.ask(f.fetcher, atom::fetch_v, paths{info.path});
  REQUIRE_FALSE(answer);
  CHECK(answer.error().code == ec::conflict);
  CHECK_FALSE(f.local->query(info.path));
  CHECK(good(f.site.blobs->stat(f.key_of(info))) == info.blob_size);
  CHECK(f.known->size() == 1);
}

TEST_CASE("a store that is not reached is no store that has lost something") {
  far_farm f;
  const auto info = f.stored("input", "contents");
  f.site.stop();
  const auto answer = f.w.ask(f.fetcher, atom::fetch_v, paths{info.path});
  REQUIRE_FALSE(answer);
  CHECK(answer.error().code == ec::unavailable);
  CHECK(f.known->size() == 1);
  f.site.start();
  CHECK(good(f.w.ask(f.fetcher, atom::fetch_v, paths{info.path})).missing.empty());
}
