#include "actors/build/worker_files.hpp"
#include "nix/hash.hpp"
#include "store/pack.hpp"
#include "tests/support/scratch_dir.hpp"

#include <catch2/catch.hpp>

#include <fstream>

using namespace coppice;
using namespace coppice::actors;
using coppice::test::need;

namespace {

/// A machine's own store, and the journal of what it keeps.
struct own_stores {
  test::scratch_dir dir;
  std::unique_ptr<store::local_store> local =
      need(store::local_store::open({dir.path / "local", "/nix/store", {}, {}, false}));
  store::kept_journal kept = need(store::kept_journal::open(dir.path / "kept"));

  static nix::store_path path(const std::string& name) {
    return *nix::fixed_output_path(name, nix::content_method::flat, nix::hash_of(nix::hash_algo::sha256, name));
  }
  /// An output with this text, built and not yet valid.
  std::pair<path_info, std::filesystem::path> built(const std::string& name, const std::string& text,
                                                    std::set<nix::store_path> references = {}) const {
    const auto tree = need(local->staging()) / "out";
    std::ofstream{tree} << text;
    need(store::canonicalise(tree));
    auto info = store::to_path_info(path(name), need(store::pack(tree, nullptr, {})), {}, {}, {});
    info.references.assign(references.begin(), references.end());
    return {info, tree};
  }
  expected<void> add(const std::pair<path_info, std::filesystem::path>& output) {
    return add_outputs(*local, kept, {output});
  }
};

} // namespace

TEST_CASE("an output that comes out different takes the place of the one before, also if others refer to that") {
  own_stores s;
  need(s.add(s.built("lib", "first")));
  need(s.add(s.built("app", "of the first", {s.path("lib")})));
  const auto second = s.built("lib", "second");
  need(s.add(second));
  CHECK(s.local->query(s.path("lib"))->nar_hash == second.first.nar_hash);
  CHECK_FALSE(s.local->query(s.path("app"))); // it can be fetched
}

TEST_CASE("an output does not take the place of one that a build uses") {
  own_stores s;
  need(s.add(s.built("lib", "first")));
  need(s.add(s.built("app", "of the first", {s.path("lib")})));
  const auto pin = s.local->pin({s.path("app")});
  const auto done = s.add(s.built("lib", "second"));
  REQUIRE_FALSE(done);
  CHECK(done.error().code == ec::conflict);
  CHECK(s.local->query(s.path("app")));
}

TEST_CASE("an output does not take the place of one that kept outputs refer to, which nobody else has") {
  own_stores s;
  need(s.add(s.built("lib", "first")));
  const auto app = s.built("app", "of the first", {s.path("lib")});
  need(s.add(app));
  store::kept_entry entry;
  entry.key.bytes[0] = 1;
  entry.drv = s.path("app.drv");
  entry.outputs = {{"out", app.first}};
  need(s.kept.add(entry));
  const auto done = s.add(s.built("lib", "second"));
  REQUIRE_FALSE(done);
  CHECK(done.error().code == ec::conflict);
  CHECK(s.local->query(s.path("app")));
}
