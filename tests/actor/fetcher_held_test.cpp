#include "actors/build/fetcher.hpp"
#include "store/compression.hpp"
#include "tests/support/path_ledger.hpp"
#include "tests/support/tcp_proxy.hpp"
#include "tests/support/world.hpp"
#include "tests/unit/actors/http_blobs_fixture.hpp"
#include "tests/unit/store/tree_support.hpp"

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

using paths = std::vector<nix::store_path>;
using way = test::tcp_proxy::way;
using act = test::tcp_proxy::act;
using store::test::good;

std::unique_ptr<store::local_store> open_local(const std::filesystem::path& root) {
  store::local_store_options options;
  options.root = root;
  options.belongs_to = store::test::me();
  return good(store::local_store::open(options));
}

/// A FETCHER on one machine, a machine that has built things, the farm's store on a third, and the networks in between.
struct farm {
  farm() {
    fetcher_state::config c;
    c.local = local.get();
    c.blobs = me.blobs.get();
    c.pool = &w.executor;
    c.clock = &w.clock;
    c.plan.me = {"elm"};
    c.held = &held;
    fetcher = w.spawn<fetcher_state>(c, fetcher_state::peers{w.spawn<test::path_ledger>(known, holders)});
  }
  /// In the farm's store, and held by the machine that built it.
  path_info built(const std::string& name, const std::string& contents, paths references = {}) {
    const auto nar = test::nar_of(contents);
    const auto blob = good(store::compress(nar));
    path_info info;
    info.path = store::test::path_named(name);
    info.nar_hash.bytes = nix::sha256(nar);
    info.nar_size = nar.size();
    info.references = std::move(references);
    info.blob.bytes = nix::sha256(blob);
    info.blob_size = blob.size();
    info.gen = {1};
    good(site.blobs->put(store::nar_key(info.blob, info.gen), blob));
    good(oak_local->add_from_nar(info, store::test::source_of(nar)));
    known->emplace(info.path, info);
    holders->push_back({info.path, {"oak"}, to_oak.url()});
    return info;
  }
  bool fetches(const path_info& info) {
    return good(w.ask(fetcher, atom::fetch_v, paths{info.path})).missing.empty() && local->query(info.path).has_value();
  }
  /// Another file in its place, of the same size.
  void spoil_at_oak(const path_info& info) {
    const auto file = oak_local->real_path(info.path);
    auto bytes = store::test::read(file);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    std::filesystem::permissions(file, std::filesystem::perms::owner_write, std::filesystem::perm_options::add);
    test::write_file(file, bytes);
  }
  void ahead(std::uint8_t job, paths inputs) {
    prefetch p;
    p.key.bytes[0] = job;
    p.inputs = std::move(inputs);
    caf::anon_send(fetcher, atom::prefetch_v, p);
    w.settle();
  }

  store::test::scratch_dir dir;
  std::unique_ptr<store::local_store> local = open_local(dir / "local"), oak_local = open_local(dir / "oak");
  test::cache_site site;
  test::cache_site oak{[this](auto& c) { c.local = oak_local.get(); }};
  test::tcp_proxy to_store{site.port.value}, to_oak{oak.port.value};
  test::member me{site, test::over(to_store)};
  std::atomic<bool> stop{false};
  store::held_fetch held{stop, [] {
                           store::held_fetch_options o;
                           o.retry_delay = 5ms;
                           return o;
                         }()};
  test::path_ledger::rows known = std::make_shared<std::map<nix::store_path, path_info>>();
  test::path_ledger::holders holders = std::make_shared<std::vector<ledger::path_holder>>();
  test::world w{test::seed_or(1)}; // its actors use the stores
  fetcher_actor fetcher;
};

} // namespace

TEST_CASE("an input comes from the machine that built it, and the farm's store is not asked") {
  farm f;
  const auto info = f.built("input", test::noise(3'000'000));
  CHECK(f.fetches(info));
  CHECK(f.to_oak.down() > info.nar_size);
  CHECK(f.to_store.connections() == 0);
}

TEST_CASE("an input is fetched once from a machine for all that want it, and read on where it was cut") {
  farm f;
  const auto info = f.built("input", test::noise(6'000'000));
  f.to_oak.next({way::down, 2'000'000, act::cut});
  f.to_oak.next({way::down, 1'000'000, act::cut});
  std::vector<decltype(f.w.begin(f.fetcher, atom::fetch_v, paths{}))> asked;
  for (int i = 0; i < 3; ++i)
    asked.push_back(f.w.begin(f.fetcher, atom::fetch_v, paths{info.path}));
  f.w.settle();
  for (auto& q : asked) {
    REQUIRE(q.answered());
    CHECK(good(q.get()).missing.empty());
  }
  CHECK(f.to_oak.connections() == 3);
  CHECK(f.to_oak.down() < info.nar_size * 14 / 10);
  CHECK(f.to_store.connections() == 0);
}

TEST_CASE("a machine that dies while it sends is followed by the farm's store, and left alone for a while") {
  farm f;
  const auto info = f.built("input", test::noise(3'000'000)), next = f.built("next", test::noise(10'000));
  f.to_oak.next({way::down, 1'000'000, act::cut});
  f.to_oak.always(test::tcp_proxy::fault{way::down, 0, act::cut});
  CHECK(f.fetches(info));
  CHECK(f.to_store.connections() == 1);
  const auto connections = f.to_oak.connections();
  CHECK(f.fetches(next));
  CHECK(f.to_oak.connections() == connections);
  f.to_oak.always({});
  f.w.clock.advance(10s);
  CHECK(f.fetches(f.built("later", test::noise(10'000))));
  CHECK(f.to_oak.connections() == connections + 1);
}

TEST_CASE("a machine with a flipped byte is barred at once, and the input is right") {
  farm f;
  const auto info = f.built("input", test::noise(3'000'000)), next = f.built("next", test::noise(10'000));
  f.spoil_at_oak(info);
  CHECK(f.fetches(info));
  CHECK(f.to_store.connections() == 1);
  const auto down = f.to_oak.down();
  f.w.clock.advance(30min);
  CHECK(f.fetches(next));
  CHECK(f.to_oak.down() == down);
  CHECK(f.known->size() == 2); // nobody says that the store lost something
}

TEST_CASE("a part of wrong bytes from a machine that dies does not spoil what the store has") {
  farm f;
  const auto info = f.built("input", test::noise(3'000'000));
  f.spoil_at_oak(info);
  f.to_oak.next({way::down, 2'000'000, act::cut});
  f.to_oak.always(test::tcp_proxy::fault{way::down, 0, act::cut});
  CHECK(f.fetches(info));
  CHECK(good(f.site.blobs->stat(store::nar_key(info.blob, info.gen))));
  CHECK(f.known->size() == 1);
}

TEST_CASE("a machine that does not hold an input any more is no worse for it") {
  farm f;
  const auto info = f.built("input", test::noise(10'000)), next = f.built("next", test::noise(10'000));
  good(f.oak_local->remove(info.path));
  CHECK(f.fetches(info));
  CHECK(f.to_store.connections() == 1);
  const auto down = f.to_oak.down();
  CHECK(f.fetches(next));
  CHECK(f.to_oak.down() > down + next.nar_size);
}

TEST_CASE("what a machine holds may be all that there is for the while that the store is away") {
  farm f;
  const auto info = f.built("input", test::noise(10'000));
  f.site.stop();
  CHECK(f.fetches(info));
}

TEST_CASE("inputs are fetched ahead with all that they refer to, and are here when they are wanted") {
  farm f;
  const auto lib = f.built("lib", test::noise(100'000)), app = f.built("app", test::noise(100'000), {lib.path});
  f.ahead(1, {app.path, store::test::path_named("unheard-of")});
  CHECK(f.local->query(app.path));
  CHECK(f.local->query(lib.path));
  const auto down = f.to_oak.down();
  CHECK(down > app.nar_size + lib.nar_size);
  CHECK(f.fetches(app));
  CHECK(f.to_oak.down() == down);
}
