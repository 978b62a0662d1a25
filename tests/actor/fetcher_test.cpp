#include "actors/build/fetcher.hpp"
#include "store/directory_blob_store.hpp"
#include "tests/support/path_ledger.hpp"
#include "tests/support/world.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <set>

using namespace coppice;
using namespace coppice::actors;
using namespace coppice::store::test;

namespace {

using paths = std::vector<nix::store_path>;

/// A FETCHER with real stores, and a ledger that says what the farm has.
struct farm {
  explicit farm(std::uint64_t seed = test::seed_or(1)) : w(seed) {
    store::local_store_options options;
    options.root = dir / "local";
    options.belongs_to = me();
    local = good(store::local_store::open(options));
    fetcher_state::config c;
    c.local = local.get();
    c.blobs = blobs.get();
    c.pool = &w.executor;
    c.clock = &w.clock;
    fetcher = w.spawn<fetcher_state>(c, fetcher_state::peers{w.spawn<test::path_ledger>(known)});
  }
  /// What is valid on this machine.
  nix::store_path here(const std::string& what) {
    auto nar = make_nar([&](nix::nar_writer& out) {
      out.regular(false, what.size());
      out.contents(what);
    });
    path_info info;
    info.path = path_named(what);
    info.nar_hash.bytes = nix::sha256(nar);
    info.nar_size = nar.size();
    good(local->add_from_nar(info, source_of(nar)));
    return info.path;
  }
  /// What the ledger says to be in the farm's store, where it is not.
  nix::store_path lost(const std::string& what, paths references = {}) {
    path_info info;
    info.path = path_named(what);
    info.references = std::move(references);
    info.blob.bytes = nix::sha256(what);
    known->emplace(info.path, info);
    return info.path;
  }

  scratch_dir dir;
  std::unique_ptr<store::local_store> local;
  std::unique_ptr<store::directory_blob_store> blobs = good(store::directory_blob_store::open_dir(dir / "cache"));
  test::path_ledger::rows known = std::make_shared<std::map<nix::store_path, path_info>>();
  test::world w; // its actors use the stores
  fetcher_actor fetcher;
};

} // namespace

TEST_CASE("one answer names all inputs that no store has, and the ledger has heard of each") {
  farm f;
  auto below = f.lost("below");
  paths asked{f.here("fine"), f.lost("left"), f.lost("right", {below}), path_named("unheard-of")};
  auto answer = good(f.w.ask(f.fetcher, atom::fetch_v, asked));
  auto missing = std::set<nix::store_path>(answer.missing.begin(), answer.missing.end());
  CHECK(missing == std::set<nix::store_path>{asked[1], asked[2], asked[3], below});
  CHECK(answer.missing.size() == 4);
  CHECK_FALSE(answer.why.empty());
  CHECK(f.known->empty());
}

TEST_CASE("what is fetched stays pinned as long as somebody has the pin") {
  farm f;
  auto lib = f.here("lib");
  {
    auto answer = good(f.w.ask(f.fetcher, atom::fetch_v, paths{lib}));
    CHECK(answer.closure.at(0).path == lib);
    CHECK(code_of(f.local->remove(lib)) == ec::conflict);
  }
  f.w.settle();
  CHECK(f.local->remove(lib));
}
