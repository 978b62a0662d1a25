#include "fixtures.hpp"
#include "nix/hash.hpp"

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

std::string text_of(const std::vector<std::uint8_t>& bytes) {
  return {bytes.begin(), bytes.end()};
}

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

} // namespace

TEST_CASE("hashes of known texts are the published ones") {
  CHECK(hash_of(hash_algo::md5, "abc").base16() == "900150983cd24fb0d6963f7d28e17f72");
  CHECK(hash_of(hash_algo::sha1, "abc").base16() == "a9993e364706816aba3e25717850c26c9cd0d89d");
  CHECK(base16_encode(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hash_of(hash_algo::sha512, "abc").base16().starts_with("ddaf35a193617abacc417349ae204131"));
  CHECK(base16_encode(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_CASE("a hash in Nix's base 32 is the one that Nix writes") {
  CHECK(hash{sha256("abc")}.to_string() == "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s");
  CHECK(hash{sha256("abc")}.sri() == "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
  CHECK(hash_of(hash_algo::md5, "abc").to_string() == "md5:3jgzhjhz9zjvbb0kyj7jc500ch");
}

TEST_CASE("base 32 of few bytes has the lowest bits last") {
  CHECK(base32_encode({}).empty());
  CHECK(base32_encode(bytes_of("\x1f")) == "0z");
  CHECK(base32_encode(bytes_of("\xff")) == "7z");
  CHECK(base32_encode(bytes_of(std::string_view{"\x01\x00\x00\x00\x00", 5})) == "00000001");
}

TEST_CASE("every encoding decodes to the bytes it came from") {
  for (std::size_t size = 0; size <= 64; ++size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i)
      bytes += static_cast<char>((i * 37 + size * 101) & 0xff);
    CHECK(text_of(good(base16_decode(base16_encode(bytes_of(bytes))))) == bytes);
    CHECK(text_of(good(base32_decode(base32_encode(bytes_of(bytes))))) == bytes);
    CHECK(text_of(good(base64_decode(base64_encode(bytes_of(bytes))))) == bytes);
  }
}

TEST_CASE("surplus bits that are not zero are refused") {
  CHECK(base32_decode("7z").has_value());
  CHECK(reason(base32_decode("8z")).find("surplus") != std::string::npos);
  CHECK(base64_decode("AA==").has_value());
  CHECK_FALSE(base64_decode("AB==").has_value());
}

TEST_CASE("texts that no bytes encode to are refused") {
  for (const auto* text : {"0", "000", "0e", "0E", "0t", "0u", "0o", "0 ", "0\n"})
    CHECK_FALSE(base32_decode(text).has_value());
  for (const auto* text : {"0", "0g", " 0", "0x00"})
    CHECK_FALSE(base16_decode(text).has_value());
  for (const auto* text : {"A", "AA", "AA=", "AA==\n", "A A==", "AA-_"})
    CHECK_FALSE(base64_decode(text).has_value());
}

TEST_CASE("a hash is read in each of its forms") {
  for (const auto algo : {hash_algo::md5, hash_algo::sha1, hash_algo::sha256, hash_algo::sha512}) {
    const auto made = hash_of(algo, "abc");
    const auto prefix = std::string{to_string(algo)} + ':';
    CHECK(good(hash::parse(made.to_string())) == made);
    CHECK(good(hash::parse(made.sri())) == made);
    CHECK(good(hash::parse(prefix + made.base16())) == made);
    CHECK(good(hash::parse(prefix + made.base64())) == made);
    CHECK(good(hash::parse_any(made.base16(), algo)) == made);
    CHECK(good(hash::parse_any(made.base32(), algo)) == made);
    CHECK(good(hash::parse_any(made.base64(), algo)) == made);
    CHECK(good(hash::parse_any(made.sri(), algo)) == made);
  }
}

TEST_CASE("a malformed hash is refused with its reason") {
  const auto digits = hash{sha256("abc")}.base16();
  for (const auto& text :
       {std::string{}, std::string{":"}, std::string{"sha256:"}, "sha257:" + digits, digits, "sha256:" + digits + "0",
        "sha256-" + digits, "sha1:" + digits, "SHA256:" + digits, "sha256:" + digits.substr(1)})
    CHECK_FALSE(reason(hash::parse(text)).empty());
  CHECK_FALSE(hash::parse_any("sha1:a9993e364706816aba3e25717850c26c9cd0d89d", hash_algo::sha256).has_value());
}

TEST_CASE("a hasher fed in pieces gives the hash of the whole, and starts anew after it") {
  hasher pieces{hash_algo::sha1};
  pieces.update("a");
  pieces.update(std::string_view{});
  pieces.update("bc");
  CHECK(pieces.size() == 3);
  CHECK(pieces.finish() == hash_of(hash_algo::sha1, "abc"));
  CHECK(pieces.finish() == hash_of(hash_algo::sha1, ""));
}

TEST_CASE("a digest of the wrong length is a bug") {
  CHECK_THROWS_AS(hash(hash_algo::sha256, bytes_of("short")), std::invalid_argument);
  CHECK_THROWS_AS(hash_of(hash_algo::md5, "abc").sha256(), std::logic_error);
}
