#include "actors/plan/graph.hpp"
#include "tests/support/world.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;
using namespace std::chrono_literals;

namespace {

/// A store that has nothing, for this reason.
class empty_store final : public store::blob_store {
public:
  ec why = ec::io;
  unsigned opened = 0;

  expected<std::unique_ptr<store::blob_reader>> open(const std::string& key) override {
    ++opened;
    if (why == ec::crashed) throw std::runtime_error("as the test says");
    return fail(why, "cannot read " + key);
  }
  expected<std::unique_ptr<store::blob_writer>> begin() override { return fail(why, "no"); }
  expected<void> put(const std::string&, std::string_view) override { return fail(why, "no"); }
  expected<void> put_all(const std::vector<std::pair<std::string, std::string>>&) override { return fail(why, "no"); }
  expected<std::optional<std::uint64_t>> stat(const std::string&) override { return fail(why, "no"); }
  expected<void> remove(const std::string&) override { return fail(why, "no"); }
  expected<void> list(std::string_view, const std::function<bool(const std::string&, std::uint64_t)>&) override {
    return fail(why, "no");
  }
};

using results = std::shared_ptr<std::vector<request_result>>;

/// LEDGER that believes the store to have every closure, and hears how requests end.
class hearing_ledger {
public:
  using interface = ledger_actor;
  static constexpr const char* name = "ledger";
  hearing_ledger(rt::self<interface>*, results heard) : heard_(std::move(heard)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::transact_atom, const ledger::transaction& t) -> ledger::answer {
              auto* end = std::get_if<ledger::finish>(&t.body);
              if (!end) return {ledger::blob_state{{1}, true}};
              heard_->push_back(end->result);
              ledger::request_row row;
              row.result = end->result;
              return {row};
            },
            [](atom::done_atom) {}, [](atom::tick_atom) {}};
  }

private:
  results heard_;
};

struct farm {
  empty_store blobs;
  results ended = std::make_shared<std::vector<request_result>>();
  test::world w;

  void start() {
    graph_state::config c;
    c.blobs = &blobs;
    c.pool = &w.executor;
    c.clock = &w.clock;
    ledger::request_row request;
    request.id.bytes[0] = 1;
    request.body.roots.push_back({*nix::store_path::from_base_name("00000000000000000000000000000000-app.drv"), {}});
    graph_state::peers peers{w.spawn<hearing_ledger>(ended), {}, {}, {}, {}};
    w.spawn<graph_state>(c, peers, request, epoch{1});
  }
};

} // namespace

TEST_CASE("a closure that cannot be read now is read again later, and ever more rarely") {
  farm f;
  f.blobs.why = GENERATE(ec::io, ec::crashed);
  f.start();
  f.w.advance(1min);
  CHECK(f.blobs.opened >= 4);
  f.w.advance(1h);
  CHECK(f.ended->empty());
  const auto before = f.blobs.opened;
  f.w.advance(10min);
  CHECK(f.blobs.opened > before);
  CHECK(f.blobs.opened <= before + 11);
  f.blobs.why = ec::missing;
  f.w.advance(3min);
  REQUIRE(f.ended->size() == 1);
  CHECK(f.ended->at(0).state == request_state::failed);
}

TEST_CASE("a closure that no other try would read fails its request at once, saying why") {
  farm f;
  f.blobs.why = GENERATE(ec::missing, ec::corrupt, ec::invalid, ec::limit_exceeded);
  f.start();
  f.w.settle();
  REQUIRE(f.ended->size() == 1);
  CHECK(f.ended->at(0).reason.find("cannot plan the request: cannot read closures/") == 0);
  CHECK(f.blobs.opened == 1);
}
