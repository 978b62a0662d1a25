#include "store/compression.hpp"
#include "tests/support/seed.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <random>

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;

namespace {

/// Text that compresses a little.
std::string some_bytes(std::size_t size, std::mt19937_64& random) {
  std::string bytes(size, '\0');
  for (auto& b : bytes)
    b = static_cast<char>('a' + random() % 16);
  return bytes;
}

expected<std::string> decompressed_in_pieces(const std::string& bytes, std::size_t piece) {
  std::string result;
  decompressor reader{[&](std::string_view block) -> expected<void> {
    result += block;
    return {};
  }};
  auto done = source_of(bytes, piece)([&](std::string_view block) { return reader.write(block); }).and_then([&] {
    return reader.finish();
  });
  if (!done) return tl::unexpected(done.error());
  return result;
}

} // namespace

TEST_CASE("what is compressed comes back, in pieces of any size and by any number of threads") {
  const auto seed = coppice::test::seed_or(std::random_device{}());
  CAPTURE(seed);
  std::mt19937_64 random{seed};
  for (const std::size_t size : {0u, 1u, 3u, 4u, 1000u, 300'000u, 5u << 20})
    for (const int workers : {0, 1}) {
      const auto bytes = some_bytes(size, random);
      const auto packed = good(compress(bytes, {3, workers}));
      CHECK(good(decompressed_in_pieces(packed, 1 + random() % 5000)) == bytes);
    }
}

TEST_CASE("bytes that are not zstd pass as they are") {
  for (const std::string bytes : {"", "x", "\x28\xb5\x2f", "nix-archive-1"})
    CHECK(good(decompressed_in_pieces(bytes, 1)) == bytes);
}

TEST_CASE("several zstd frames are one stream") {
  CHECK(good(decompress(good(compress("one ")) + good(compress("two")), {})) == "one two");
}

TEST_CASE("a zstd stream that is cut off is corrupt") {
  const auto packed = good(compress(std::string(100'000, 'x') + "y"));
  for (std::size_t size = 4; size < packed.size(); ++size)
    CHECK(code_of(decompress(packed.substr(0, size), {})) == ec::corrupt);
}

TEST_CASE("a flipped bit in a zstd stream is corrupt") {
  std::mt19937_64 random{1};
  auto packed = good(compress(some_bytes(10'000, random)));
  packed[packed.size() / 2] = static_cast<char>(packed[packed.size() / 2] ^ 4);
  CHECK(code_of(decompress(packed, {})) == ec::corrupt);
}

TEST_CASE("a small stream that unpacks to a large one meets the limit") {
  decompress_limits limits;
  limits.bytes_max = 1 << 20;
  const auto bomb = good(compress(std::string(16 << 20, '\0')));
  REQUIRE(bomb.size() < 10'000);
  CHECK(code_of(decompress(bomb, limits)) == ec::limit_exceeded);
  CHECK(good(decompress(good(compress(std::string(1 << 20, '\0'))), limits)).size() == 1 << 20);
}

TEST_CASE("a sink that fails ends both compressing and decompressing") {
  const byte_sink full = [](std::string_view) -> expected<void> { return fail(ec::storage_full, "no more"); };
  zstd_compressor compressor{full};
  CHECK(code_of(compressor.write("x").and_then([&] { return compressor.finish(); })) == ec::storage_full);
  decompressor reader{full};
  CHECK(code_of(reader.write(good(compress("x")))) == ec::storage_full);
}
