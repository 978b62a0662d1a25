#include "fixtures.hpp"
#include "nix/hash.hpp"
#include "nix/signature.hpp"

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

/// RFC 8032, section 7.1, test 3: seed and public key.
const std::string seed = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";
const std::string public_half = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
const std::string signature = "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                              "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a";

std::string base64(const std::string& hex) {
  return base64_encode(good(base16_decode(hex)));
}

} // namespace

TEST_CASE("a signature is the one that ed25519 defines") {
  const auto text = "farm-1:" + base64(seed + public_half);
  const auto key = good(secret_key::parse(text));
  CHECK(key.to_string() == text);
  CHECK(key.name() == "farm-1");
  CHECK(key.public_key().to_string() == "farm-1:" + base64(public_half));
  CHECK(key.sign("\xaf\x82") == "farm-1:" + base64(signature));
  CHECK(good(secret_key::parse(text + "\n")).to_string() == text);
}

TEST_CASE("what a new key signs, its public half verifies, and no other key does") {
  const auto key = good(secret_key::generate("farm-1")), other = good(secret_key::generate("farm-1"));
  CHECK(key.to_string() != other.to_string());
  const auto verifying = good(public_key::parse(key.public_key().to_string()));
  CHECK(verifying == key.public_key());
  const auto signed_text = key.sign("text");
  CHECK(signature_key_name(signed_text) == "farm-1");
  CHECK(verify("text", signed_text, verifying));
  CHECK_FALSE(verify("texu", signed_text, verifying));
  CHECK_FALSE(verify("text", signed_text, other.public_key()));
  CHECK(verify_any("text", std::vector{other.sign("text"), signed_text}, std::vector{verifying}));
  CHECK_FALSE(verify_any("text", {}, std::vector{verifying}));
}

TEST_CASE("a signature under another key's name does not verify") {
  const auto key = good(secret_key::parse("farm-1:" + base64(seed + public_half)));
  const auto renamed = "farm-2" + key.sign("text").substr(6);
  CHECK_FALSE(verify("text", renamed, key.public_key()));
}

TEST_CASE("a malformed signature does not verify") {
  const auto key = good(secret_key::generate("k")).public_key();
  for (const auto* text : {"", "k", ":", "k:", "k:AA==", "k:!!!!"})
    CHECK_FALSE(verify("text", text, key));
}

TEST_CASE("malformed keys are refused, and a secret one is not quoted") {
  const auto bytes = base64(seed + public_half);
  for (const auto& text : {bytes, ":" + bytes, "a b:" + bytes, "k:" + bytes + "A", "k:" + base64(seed), "k: " + bytes,
                           "k:" + base64(seed + seed), std::string{}}) {
    const auto why = reason(secret_key::parse(text));
    CHECK(why.find(bytes.substr(0, 20)) == std::string::npos);
    CHECK_FALSE(public_key::parse(text == "k:" + base64(seed) ? "k:" + bytes : text).has_value());
  }
  CHECK_FALSE(secret_key::generate("").has_value());
  CHECK_FALSE(secret_key::generate("a:b").has_value());
}
