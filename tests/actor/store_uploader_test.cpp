#include "actors/deliver/store_uploader.hpp"
#include "store/directory_blob_store.hpp"
#include "tests/support/path_ledger.hpp"
#include "tests/support/world.hpp"
#include "tests/unit/actors/fake_worker.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;
using namespace coppice::store::test;

namespace {

/// Fails its first orders; before each answer the test may do something.
class failing_importer {
public:
  using interface = importer_actor;
  static constexpr const char* name = "importer";
  failing_importer(rt::self<interface>* self, unsigned failures, std::function<void()> asked)
      : self_(self), failures_(failures), asked_(std::move(asked)) {}
  interface::behavior_type make_behavior() {
    return {[this](atom::import_atom, const std::vector<nix::store_path>&) -> caf::result<ledger::done> {
              rt::reply<ledger::done> out{self_};
              asked_();
              if (failures_ > 0 && failures_-- > 0)
                out.fail(ec::restarted, "as the test says");
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
  unsigned failures_;
  std::function<void()> asked_;
};

} // namespace

TEST_CASE("outputs whose references cannot be imported at first are packed and put once") {
  scratch_dir dir;
  auto blobs = good(store::directory_blob_store::open_dir(dir / "cache"));
  const auto lib = path_named("lib");
  const auto tree = dir / "tree";
  write(tree, "needs /nix/store/" + lib.base_name());
  test::world w;
  unsigned imports = 0;
  auto asked = [&] {
    ++imports;
    fs::remove(tree); // who packs again now gets nowhere
  };
  store_uploader_state::config c;
  c.blobs = blobs.get();
  c.pool = &w.executor;
  c.nar_bytes_max = 1 << 20;
  c.importer = w.spawn<failing_importer>(3u, asked);
  upload_task task;
  task.worker = w.spawn<fake_worker>([](auto&) {}, [](auto&) {});
  task.drv = path_named("app.drv");
  task.outputs.resize(1);
  task.outputs[0].name = "out";
  task.outputs[0].info.path = path_named("app");
  task.trees = task.kept_trees = {tree};
  task.candidates = {lib};
  auto known = std::make_shared<std::map<nix::store_path, path_info>>();
  auto uploader = w.spawn<store_uploader_state>(c, w.spawn<test::path_ledger>(known), task);
  auto end = w.end_of(uploader);
  REQUIRE(w.run_until([&] { return end->has_value(); }, std::chrono::minutes{10}));
  CHECK(**end == "normal");
  CHECK(imports == 4);
}
