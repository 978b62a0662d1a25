#include "store/kept.hpp"
#include "tests/unit/store/tree_support.hpp"

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;

namespace {

kept_entry entry_named(const std::string& name, std::uint64_t token) {
  kept_entry entry;
  entry.key.bytes = nix::sha256(name);
  entry.token.value = token;
  entry.drv = path_named(name + ".drv");
  entry.aterm = "Derive(" + std::string(1'000, 'x') + std::string("\0\xff", 2);
  realised_output out;
  out.name = "out";
  out.info.path = path_named(name);
  out.info.nar_hash.bytes = nix::sha256("nar");
  out.info.nar_size = 96;
  out.info.references = {path_named("dep")};
  entry.outputs = {out};
  return entry;
}

} // namespace

TEST_CASE("kept entries are there after the next open until they are removed") {
  const scratch_dir dir;
  const auto a = entry_named("a", 1), b = entry_named("b", 2), b_again = entry_named("b", 3);
  {
    auto journal = good(kept_journal::open(dir / "kept"));
    good(journal.add(a));
    good(journal.add(b));
    good(journal.add(b_again));
  }
  auto journal = good(kept_journal::open(dir / "kept"));
  auto listing = good(journal.list());
  CHECK(listing.problems.empty());
  const auto in_order = a.key < b.key ? std::vector{a, b_again} : std::vector{b_again, a};
  CHECK(listing.entries == in_order);
  good(journal.remove(b.key));
  good(journal.remove(b.key));
  CHECK(good(journal.list()).entries == std::vector{a});
}

TEST_CASE("torn and foreign files in the journal are told and skipped") {
  const scratch_dir dir;
  auto journal = good(kept_journal::open(dir / "kept"));
  const auto a = entry_named("a", 1), b = entry_named("b", 2), c = entry_named("c", 3);
  for (const auto& entry : {a, b, c})
    good(journal.add(entry));
  const auto file = dir / "kept" / b.key.to_string();
  auto bytes = read(file);
  SECTION("cut off") {
    write(file, bytes.substr(0, bytes.size() / 2));
  }
  SECTION("empty") {
    write(file, "");
  }
  SECTION("a flipped bit") {
    bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
    write(file, bytes);
  }
  SECTION("the entry of another") {
    write(file, read(dir / "kept" / a.key.to_string()));
  }
  write(dir / "kept/README", "foreign");
  const auto listing = good(journal.list());
  CHECK(listing.entries.size() == 2);
  CHECK(listing.problems.size() == 2);
}
