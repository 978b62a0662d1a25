#include "store/directory_blob_store.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <fcntl.h>
#include <sys/wait.h>

#include <map>

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;

namespace {

std::map<std::string, std::uint64_t> listed(blob_store& blobs, std::string_view prefix) {
  std::map<std::string, std::uint64_t> all;
  good(blobs.list(prefix, [&](const std::string& key, std::uint64_t bytes) {
    all[key] = bytes;
    return true;
  }));
  return all;
}

} // namespace

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

TEST_CASE("keys that could leave the store or hide in it are refused") {
  for (const std::string key :
       {"", "/", "/a", "a/", "a//b", "..", "a/../b", "../a", ".tmp/x", "a/.b", "a b", "a\nb", "a\x7f", "\xc3\xa4"}) {
    INFO(key);
    CHECK(code_of(check_blob_key(key)) == ec::invalid);
  }
  CHECK(code_of(check_blob_key(std::string("a\0b", 3))) == ec::invalid);
  CHECK(code_of(check_blob_key(std::string(2000, 'a'))) == ec::invalid);
}

TEST_CASE("a blob is seen whole after its commit and not before") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  auto writer = good(blobs->begin());
  good(writer->write("hello "));
  good(writer->write("world"));
  CHECK(listed(*blobs, "").size() == 1); // nix-cache-info
  good(writer->commit("nar/x"));
  CHECK(good(read_blob(*blobs, "nar/x", 100)) == "hello world");
  CHECK(good(blobs->stat("nar/x")) == 11);
  CHECK(code_of(read_blob(*blobs, "nar/x", 10)) == ec::limit_exceeded);
}

TEST_CASE("a blob that is not committed leaves no trace") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  const auto before = entries_below(dir);
  good(good(blobs->begin())->write("x"));
  SECTION("nor does one with a bad key") {
    auto writer = good(blobs->begin());
    CHECK(code_of(writer->commit("../x")) == ec::invalid);
  }
  CHECK(entries_below(dir) == before);
}

TEST_CASE("reading a part of a blob ends at its end") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  good(blobs->put("a", "0123456789"));
  auto reader = good(blobs->open("a"));
  std::string into(4, '\0');
  CHECK(reader->size() == 10);
  CHECK(good(reader->read(3, into)) == 4);
  CHECK(into == "3456");
  CHECK(good(reader->read(8, into)) == 2);
  CHECK(good(reader->read(100, into)) == 0);
}

TEST_CASE("an open blob keeps its bytes when its key is replaced or removed") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  good(blobs->put("a", "old"));
  auto reader = good(blobs->open("a"));
  good(blobs->put("a", "newer"));
  CHECK(good(read_blob(*blobs, "a", 100)) == "newer");
  good(blobs->remove("a"));
  std::string into(10, '\0');
  CHECK(good(reader->read(0, into)) == 3);
  CHECK(into.substr(0, 3) == "old");
}

TEST_CASE("what is absent is missing, has no size and can be removed") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  good(blobs->put("a", "x"));
  for (const std::string key : {"b", "nar/b", "a/b"}) {
    CHECK(code_of(blobs->open(key)) == ec::missing);
    CHECK(good(blobs->stat(key)) == std::nullopt);
    good(blobs->remove(key));
  }
}

TEST_CASE("many small blobs are put at once and listed by prefix") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  good(blobs->put_all({{"a.narinfo", "1"}, {"log/x", "22"}, {"log/y", "333"}, {"logs", "4444"}}));
  CHECK(listed(*blobs, "log/") == std::map<std::string, std::uint64_t>{{"log/x", 2}, {"log/y", 3}});
  CHECK(listed(*blobs, "log") == std::map<std::string, std::uint64_t>{{"log/x", 2}, {"log/y", 3}, {"logs", 4}});
  CHECK(listed(*blobs, "log/y") == std::map<std::string, std::uint64_t>{{"log/y", 3}});
  CHECK(listed(*blobs, "").size() == 5);
  CHECK(listed(*blobs, "nar/").empty());
}

TEST_CASE("a listing stops when told") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  good(blobs->put_all({{"a", ""}, {"b", ""}}));
  int calls = 0;
  good(blobs->list("", [&](const std::string&, std::uint64_t) { return ++calls < 2; }));
  CHECK(calls == 2);
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

TEST_CASE("a full disk is told as such and leaves nothing behind") {
  const small_disk disk{"1m"};
  if (!disk.mounted()) return;
  auto blobs = good(directory_blob_store::open_dir(disk / "cache"));
  const auto before = entries_below(disk);
  CHECK(code_of(blobs->put("a", std::string(2 << 20, 'x'))) == ec::storage_full);
  {
    auto writer = good(blobs->begin());
    CHECK(code_of(writer->write(std::string(2 << 20, 'x'))) == ec::storage_full);
  }
  CHECK(entries_below(disk) == before);
  good(blobs->put("a", "small"));
}

TEST_CASE("a blob that was changed on disk does not verify") {
  const scratch_dir dir;
  auto blobs = good(directory_blob_store::open_dir(dir / "cache"));
  good(blobs->put("a", "bytes"));
  const blob_id id{nix::sha256("bytes")};
  good(verify_blob(*blobs, "a", id, 5));
  write(dir / "cache/a", "bytez");
  CHECK(code_of(verify_blob(*blobs, "a", id, 5)) == ec::corrupt);
  CHECK(code_of(verify_blob(*blobs, "a", id, 4)) == ec::corrupt);
  CHECK(code_of(verify_blob(*blobs, "b", id, 5)) == ec::missing);
}
