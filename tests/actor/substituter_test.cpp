#include "actors/plan/substituter.hpp"
#include "tests/support/path_ledger.hpp"
#include "tests/support/world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <memory>

using namespace coppice;
using namespace coppice::actors;

namespace {

/// What SUBSTITUTER's neighbours were asked, and how they answer.
struct record {
  unsigned fetches = 0;
  std::set<nix::store_path> nowhere;
  std::vector<std::vector<nix::store_path>> fetched;
  std::vector<nix::store_path> imported;
  std::vector<std::weak_ptr<const void>> pins;
  unsigned imports = 0, imports_fail = 0;
  ec failure = ec::restarted;
  bool import_hangs = false;
  std::vector<rt::reply<ledger::done>> hanging;
};
using shared_record = std::shared_ptr<record>;

class fake_fetcher {
public:
  using interface = fetcher_actor;
  static constexpr const char* name = "fetcher";
  fake_fetcher(rt::self<interface>*, shared_record r) : r_(std::move(r)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::fetch_atom, const std::vector<nix::store_path>& paths) {
              fetched f;
              r_->fetched.push_back(paths);
              for (auto& path : paths)
                if (r_->nowhere.contains(path)) f.missing.push_back(path);
              if (!f.missing.empty()) return f;
              f.pin = std::make_shared<int>();
              r_->pins.push_back(f.pin);
              ++r_->fetches;
              return f;
            },
            [](atom::prefetch_atom, const prefetch&) {},
            [](atom::done_atom, std::uint64_t, const fetched&, const caf::error&) {}};
  }

private:
  shared_record r_;
};

class fake_importer {
public:
  using interface = importer_actor;
  static constexpr const char* name = "importer";
  fake_importer(rt::self<interface>* self, shared_record r) : self_(self), r_(std::move(r)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::import_atom, const std::vector<nix::store_path>& paths) -> caf::result<ledger::done> {
              ++r_->imports;
              r_->imported.insert(r_->imported.end(), paths.begin(), paths.end());
              rt::reply<ledger::done> out{self_};
              if (r_->import_hangs)
                r_->hanging.push_back(out);
              else if (r_->imports <= r_->imports_fail)
                out.fail(r_->failure, "as the test says");
              else
                out.deliver(ledger::done{});
              return out;
            },
            [](atom::packed_atom, const path_info&, const caf::error&) {},
            [](atom::stored_atom, const nix::store_path&, const caf::error&) {},
            [](atom::done_atom, std::uint64_t, const caf::error&) {}};
  }

private:
  rt::self<interface>* self_;
  shared_record r_;
};

struct farm {
  test::world w;
  shared_record r = std::make_shared<record>();
  substituter_state::config config;
  substituter_actor substituter;

  farm() {
    substituter_state::peers peers{
        w.spawn<test::path_ledger>(std::make_shared<std::map<nix::store_path, path_info>>()),
        w.spawn<fake_fetcher>(r), w.spawn<fake_importer>(r)};
    substituter = w.spawn<substituter_state>(config, peers);
  }
  expected<ledger::done> substitute() {
    substitution what;
    what.key.bytes[0] = 1;
    what.drv = *nix::store_path::from_base_name("00000000000000000000000000000000-app.drv");
    what.outputs.resize(1);
    what.outputs[0].info.path = *nix::store_path::from_base_name("00000000000000000000000000000000-app");
    return w.ask(substituter, atom::substitute_v, what);
  }
  /// Nothing stays pinned.
  bool all_unpinned() {
    w.settle();
    return std::all_of(r->pins.begin(), r->pins.end(), [](auto& pin) { return pin.expired(); });
  }
};

} // namespace

TEST_CASE("a substitution during which the importer dies is tried again later") {
  farm f;
  f.r->imports_fail = 2;
  CHECK(f.substitute());
  CHECK(f.r->imports == 3);
  CHECK(f.r->fetches == 3);
  CHECK(f.all_unpinned());
}

TEST_CASE("a substitution that never succeeds ends after so many tries") {
  farm f;
  f.r->imports_fail = 1'000;
  auto answer = f.substitute();
  REQUIRE_FALSE(answer);
  CHECK(answer.error().code == ec::restarted);
  CHECK(f.r->imports == f.config.tries_max);
  CHECK(f.all_unpinned());
}

TEST_CASE("what the caches have not, or wrong, is not asked of them again") {
  farm f;
  f.r->imports_fail = 1'000;
  f.r->failure = GENERATE(ec::missing, ec::corrupt, ec::conflict, ec::invalid);
  auto answer = f.substitute();
  REQUIRE_FALSE(answer);
  CHECK(answer.error().code == f.r->failure);
  CHECK(f.r->imports == 1);
  CHECK(f.all_unpinned());
}

TEST_CASE("a substituter that dies leaves nothing pinned") {
  farm f;
  f.r->import_hangs = true;
  substitution what;
  auto q = f.w.begin(f.substituter, atom::substitute_v, what);
  f.w.settle();
  REQUIRE(f.r->imports == 1);
  CHECK_FALSE(f.all_unpinned());
  rt::send_exit(caf::actor_cast<caf::strong_actor_ptr>(f.substituter), caf::exit_reason::kill);
  CHECK(f.all_unpinned());
  f.r->hanging.clear();
}

TEST_CASE("what a member wants from upstream caches is imported, but for what they do not have") {
  farm f;
  auto path = [](const char* name) {
    return *nix::store_path::from_base_name(std::string("00000000000000000000000000000000-") + name);
  };
  const std::vector wanted{path("a"), path("b"), path("c")};
  auto import = [&] { return f.w.ask(upstream_actor{f.substituter}, atom::import_v, upstream_wanted{wanted}); };
  SECTION("all of it at once") {
    CHECK(import());
    CHECK(f.r->fetched == std::vector<std::vector<nix::store_path>>{wanted});
    CHECK(f.r->imported == wanted);
  }
  SECTION("one after the other if something is missing") {
    f.r->nowhere = {path("b")};
    CHECK(import());
    CHECK(f.r->imported == std::vector{path("a"), path("c")});
  }
  SECTION("and an importer that dies is told, to be asked again") {
    f.r->imports_fail = 1;
    auto first = import();
    REQUIRE_FALSE(first);
    CHECK(first.error().code == ec::restarted);
    CHECK(import());
  }
  CHECK(f.all_unpinned());
}
