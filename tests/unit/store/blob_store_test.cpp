#include "store/directory_blob_store.hpp"
#include "tests/unit/store/blob_store_conformance.hpp"

#include <fcntl.h>
#include <sys/wait.h>

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;

namespace coppice::store::test {

std::unique_ptr<blobs_under_test> make_blobs(const fs::path& dir) {
  class in_directory final : public blobs_under_test {
  public:
    explicit in_directory(std::unique_ptr<directory_blob_store> blobs) : blobs_(std::move(blobs)) {}
    blob_store& blobs() override { return *blobs_; }
    void spoil(const std::string& key, const std::string& bytes) override { write(blobs_->dir() / key, bytes); }

  private:
    std::unique_ptr<directory_blob_store> blobs_;
  };
  return std::make_unique<in_directory>(good(directory_blob_store::open_dir(dir)));
}

} // namespace coppice::store::test

TEST_CASE("keys are made as a binary cache has them") {
  const blob_id blob{nix::sha256("x")};
  const auto path = *nix::store_path::from_base_name("9wfjklzy9nqsnscmp1kl17sy5a32h67f-a.drv");
  CHECK(nar_key(blob, generation{3}) == "nar/" + blob.to_string() + ".3.nar.zst");
  CHECK(narinfo_key(path) == "9wfjklzy9nqsnscmp1kl17sy5a32h67f.narinfo");
  CHECK(log_key(path) == "log/9wfjklzy9nqsnscmp1kl17sy5a32h67f-a.drv");
  CHECK(attempt_log_key(inhash{blob.bytes}, fence{7}) == "attempts/" + blob.to_string() + "-7.log");
  for (const auto& key : {nar_key(blob, {}), narinfo_key(path), log_key(path), closure_key(blob, {})})
    CHECK(check_blob_key(key));
}

TEST_CASE("what a blob must hash to is read from its key") {
  const blob_id blob{nix::sha256("x")};
  CHECK(blob_of_key(nar_key(blob, generation{3})) == blob);
  CHECK(blob_of_key(closure_key(blob, generation{UINT64_MAX})) == blob);
  const auto hex = blob.to_string();
  for (const std::string& key : {std::string{}, "nar/" + hex, "nar/" + hex + ".1", "nar/" + hex + ".nar.zst",
                                "nar/" + hex + ".01.nar.zst", "nar/" + hex + ".1.nar.zst.x", "closures/" + hex + ".-1",
                                "closures/" + hex + ".1.nar.zst", "log/" + hex + ".1", "nar/x/" + hex + ".1.nar.zst",
                                "closures/" + hex + ".99999999999999999999", "nar/" + hex.substr(1) + ".1.nar.zst"}) {
    INFO(key);
    CHECK_FALSE(blob_of_key(key));
  }
}

TEST_CASE("keys that could leave the store or hide in it are refused") {
  for (const std::string key :
       {"", "/", "/a", "a/", "a//b", "..", "a/../b", "../a", ".tmp/x", "a/.b", "a b", "a\nb", "a\x7f", "\xc3\xa4"}) {
    INFO(key);
    CHECK(code_of(check_blob_key(key)) == ec::invalid);
  }
  CHECK(code_of(check_blob_key(std::string("a\0b", 3))) == ec::invalid);
  CHECK(code_of(check_blob_key(std::string(2000, 'a'))) == ec::invalid);
}

TEST_CASE("temporary files of a writer that died are swept, those of a living one are not") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  auto living = good(blobs->begin());
  good(living->write("alive"));
  if (const auto child = ::fork(); child == 0) {
    auto writer = blobs->begin();
    ::_exit(writer && (*writer)->write("dead") ? 0 : 1); // without destructors, as a crash
  } else {
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(status == 0);
  }
  CHECK(entries_below(dir / "cache/.tmp") == 2);
  auto again = good(directory_blob_store::open_dir(dir / "cache"));
  CHECK(entries_below(dir / "cache/.tmp") == 1);
  good(living->commit("x"));
  CHECK(good(read_blob(*again, "x", 10)) == "alive");
}

TEST_CASE("nix-cache-info is written once and decides for which store directory the blobs are") {
  const scratch_dir dir;
  good(directory_blob_store::open_dir(dir / "cache"));
  CHECK(read(dir / "cache/nix-cache-info") == "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
  write(dir / "cache/nix-cache-info", "Priority: 10\nStoreDir: /nix/store\n");
  good(directory_blob_store::open_dir(dir / "cache"));
  CHECK(read(dir / "cache/nix-cache-info") == "Priority: 10\nStoreDir: /nix/store\n");
  CHECK(code_of(directory_blob_store::open_dir(dir / "cache", "/other/store")) == ec::conflict);
  CHECK(code_of(directory_blob_store::open_dir(dir / "cache", "/nix")) == ec::conflict);
}
