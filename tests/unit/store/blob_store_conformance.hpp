#pragma once

#include "store/blob_store.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <memory>
#include <string>

/// What every store of blobs keeps to. Included by one file of a program, which defines make_blobs().
namespace coppice::store::test {

/// A store, empty but for nix-cache-info.
class blobs_under_test {
public:
  virtual ~blobs_under_test() = default;
  virtual blob_store& blobs() = 0;
  /// Whether its blobs are on the disk that it was made on.
  virtual bool on_disk() const { return true; }
  /// Behind the store's back.
  virtual void spoil(const std::string& key, const std::string& bytes) = 0;
};
/// One with what files it has below `dir`.
std::unique_ptr<blobs_under_test> make_blobs(const fs::path& dir);

inline std::map<std::string, std::uint64_t> listed(blob_store& blobs, std::string_view prefix) {
  std::map<std::string, std::uint64_t> all;
  good(blobs.list(prefix, [&](const std::string& key, std::uint64_t bytes) {
    all[key] = bytes;
    return true;
  }));
  return all;
}

/// One in a directory that goes with it.
struct fresh_blobs {
  scratch_dir dir;
  std::unique_ptr<blobs_under_test> made = make_blobs(dir / "cache");
  blob_store& blobs = made->blobs();
};

TEST_CASE("a blob is seen whole after its commit and not before") {
  const fresh_blobs f;
  auto writer = good(f.blobs.begin());
  good(writer->write("hello "));
  good(writer->write("world"));
  CHECK(listed(f.blobs, "").size() == 1); // nix-cache-info
  good(writer->commit("log/x"));
  CHECK(good(read_blob(f.blobs, "log/x", 100)) == "hello world");
  CHECK(good(f.blobs.stat("log/x")) == 11);
  CHECK(code_of(read_blob(f.blobs, "log/x", 10)) == ec::limit_exceeded);
}

TEST_CASE("a blob of no bytes is one") {
  const fresh_blobs f;
  good(good(f.blobs.begin())->commit("log/x"));
  good(f.blobs.put("log/y", ""));
  CHECK(listed(f.blobs, "log/") == std::map<std::string, std::uint64_t>{{"log/x", 0}, {"log/y", 0}});
  CHECK(good(read_blob(f.blobs, "log/x", 0)).empty());
  CHECK(good(f.blobs.stat("log/y")) == 0);
}

TEST_CASE("a blob is the bytes that were written, however many and in whatever pieces") {
  const fresh_blobs f;
  std::string bytes(5'000'003, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<char>((i * i) >> 7);
  auto writer = good(f.blobs.begin());
  for (std::size_t at = 0, size = 1; at < bytes.size(); at += size, size = size * 3 % 100'003)
    good(writer->write(std::string_view{bytes}.substr(at, size)));
  good(writer->commit("log/x"));
  CHECK(good(read_blob(f.blobs, "log/x", bytes.size())) == bytes);
  auto reader = good(f.blobs.open("log/x"));
  std::string tail(1000, '\0'), head(1000, '\0');
  CHECK(good(reader->read(bytes.size() - 500, tail)) == 500);
  CHECK(good(reader->read(0, head)) == 1000);
  CHECK(tail.substr(0, 500) == bytes.substr(bytes.size() - 500));
  CHECK(head == bytes.substr(0, 1000));
}

TEST_CASE("a blob that is not committed leaves no trace") {
  const fresh_blobs f;
  const auto before = entries_below(f.dir);
  good(good(f.blobs.begin())->write("x"));
  SECTION("nor does one with a bad key") {
    auto writer = good(f.blobs.begin());
    CHECK(code_of(writer->commit("../x")) == ec::invalid);
  }
  CHECK(entries_below(f.dir) == before);
}

TEST_CASE("reading a part of a blob ends at its end") {
  const fresh_blobs f;
  good(f.blobs.put("log/a", "0123456789"));
  auto reader = good(f.blobs.open("log/a"));
  std::string into(4, '\0');
  CHECK(reader->size() == 10);
  CHECK(good(reader->read(3, into)) == 4);
  CHECK(into == "3456");
  CHECK(good(reader->read(8, into)) == 2);
  CHECK(good(reader->read(100, into)) == 0);
}

TEST_CASE("an open blob keeps its bytes when its key is replaced or removed") {
  const fresh_blobs f;
  good(f.blobs.put("log/a", "old"));
  auto reader = good(f.blobs.open("log/a"));
  good(f.blobs.put("log/a", "newer"));
  CHECK(good(read_blob(f.blobs, "log/a", 100)) == "newer");
  CHECK(good(f.blobs.open("log/a"))->version() != reader->version());
  good(f.blobs.remove("log/a"));
  std::string into(10, '\0');
  CHECK(good(reader->read(0, into)) == 3);
  CHECK(into.substr(0, 3) == "old");
}

TEST_CASE("the same blob has the same version whenever it is opened") {
  const fresh_blobs f;
  good(f.blobs.put("log/a", "bytes"));
  const auto version = good(f.blobs.open("log/a"))->version();
  CHECK_FALSE(version.empty());
  CHECK(good(f.blobs.open("log/a"))->version() == version);
}

TEST_CASE("what is absent is missing, has no size and can be removed") {
  const fresh_blobs f;
  good(f.blobs.put("log/a", "x"));
  for (const std::string key : {"log/b", "attempts/b", "log/a/b"}) {
    CHECK(code_of(f.blobs.open(key)) == ec::missing);
    CHECK(good(f.blobs.stat(key)) == std::nullopt);
    good(f.blobs.remove(key));
  }
}

TEST_CASE("many small blobs are put at once and listed by prefix") {
  const fresh_blobs f;
  good(f.blobs.put_all({{"attempts/a", "1"}, {"log/d/x", "22"}, {"log/d/y", "333"}, {"log/ds", "4444"}}));
  using keys = std::map<std::string, std::uint64_t>;
  CHECK(listed(f.blobs, "log/d/") == keys{{"log/d/x", 2}, {"log/d/y", 3}});
  CHECK(listed(f.blobs, "log/d") == keys{{"log/d/x", 2}, {"log/d/y", 3}, {"log/ds", 4}});
  CHECK(listed(f.blobs, "log/d/y") == keys{{"log/d/y", 3}});
  CHECK(listed(f.blobs, "").size() == 5);
  CHECK(listed(f.blobs, "nar/").empty());
}

TEST_CASE("a key may have any printable character") {
  const fresh_blobs f;
  const std::string key = "log/a%b?c#d+e&f=g%2f\"'<>[]{}|\\^`~!@$*(),;:x";
  good(f.blobs.put(key, "x"));
  CHECK(good(read_blob(f.blobs, key, 10)) == "x");
  CHECK(listed(f.blobs, key) == std::map<std::string, std::uint64_t>{{key, 1}});
  CHECK(listed(f.blobs, "log/") == std::map<std::string, std::uint64_t>{{key, 1}});
  good(f.blobs.remove(key));
  CHECK(listed(f.blobs, "log/").empty());
}

TEST_CASE("a listing stops when told") {
  const fresh_blobs f;
  good(f.blobs.put_all({{"log/a", ""}, {"log/b", ""}}));
  int calls = 0;
  good(f.blobs.list("", [&](const std::string&, std::uint64_t) { return ++calls < 2; }));
  CHECK(calls == 2);
}

TEST_CASE("a full disk is told as such and leaves nothing behind") {
  const small_disk disk{"1m"};
  if (!disk.mounted()) return;
  const auto made = make_blobs(disk / "cache");
  auto& blobs = made->blobs();
  const auto before = entries_below(disk);
  if (made->on_disk()) CHECK(code_of(blobs.put("log/a", std::string(2 << 20, 'x'))) == ec::storage_full);
  const auto write = [&] {
    auto writer = good(blobs.begin());
    return writer->write(std::string(2 << 20, 'x')).and_then([&] { return writer->commit("log/b"); });
  };
  CHECK(code_of(write()) == ec::storage_full);
  CHECK(entries_below(disk) == before);
  good(blobs.put("log/a", "small"));
}

TEST_CASE("a blob that was changed does not verify") {
  const fresh_blobs f;
  good(f.blobs.put("log/a", "bytes"));
  const blob_id id{nix::sha256("bytes")};
  good(verify_blob(f.blobs, "log/a", id, 5));
  f.made->spoil("log/a", "bytez");
  CHECK(code_of(verify_blob(f.blobs, "log/a", id, 5)) == ec::corrupt);
  CHECK(code_of(verify_blob(f.blobs, "log/a", id, 4)) == ec::corrupt);
  CHECK(code_of(verify_blob(f.blobs, "log/b", id, 5)) == ec::missing);
}

} // namespace coppice::store::test
