#include "nix/signature.hpp"

#include "nix/hash.hpp"

#include <sodium.h>

#include <algorithm>
#include <stdexcept>

namespace coppice::nix {

namespace {

static_assert(crypto_sign_SECRETKEYBYTES == 64 && crypto_sign_PUBLICKEYBYTES == 32);

/// libsodium must be initialised before it makes random numbers.
void init_sodium() {
  static const int status = sodium_init();
  if (status < 0) throw std::runtime_error("libsodium cannot be initialised");
}

expected<void> check_key_name(std::string_view name) {
  const auto bad = [](char c) { return c == ':' || static_cast<unsigned char>(c) <= ' ' || c == 0x7f; };
  if (name.empty() || std::any_of(name.begin(), name.end(), bad))
    return fail("a key's name must be set and hold neither ':' nor white space");
  return {};
}

struct named_bytes {
  std::string name;
  std::vector<std::uint8_t> bytes;
};

/// Errors hold nothing of what follows the name.
expected<named_bytes> split(std::string_view text, std::size_t size, std::string_view what) {
  const auto colon = text.find(':');
  if (colon == text.npos) return fail("cannot parse ", what, ": no ':' after its name");
  const auto name = text.substr(0, colon);
  if (auto checked = check_key_name(name); !checked)
    return fail_within("cannot parse " + std::string{what}, checked.error());
  auto bytes = base64_decode(text.substr(colon + 1));
  if (!bytes) return fail("cannot parse ", what, " ", quoted(name), ": no base 64 after its name");
  if (bytes->size() != size) {
    sodium_memzero(bytes->data(), bytes->size());
    return fail("cannot parse ", what, " ", quoted(name), ": it has ", bytes->size(), " bytes, not ", size);
  }
  return named_bytes{std::string{name}, std::move(*bytes)};
}

} // namespace

expected<public_key> public_key::parse(std::string_view text) {
  auto parts = split(text, crypto_sign_PUBLICKEYBYTES, "public key");
  if (!parts) return tl::unexpected<error>(std::move(parts.error()));
  class public_key key;
  key.name_ = std::move(parts->name);
  std::copy(parts->bytes.begin(), parts->bytes.end(), key.bytes_.begin());
  return key;
}

std::string public_key::to_string() const {
  return name_ + ':' + base64_encode(bytes_);
}

expected<secret_key> secret_key::parse(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  auto parts = split(text, crypto_sign_SECRETKEYBYTES, "secret key");
  if (!parts) return tl::unexpected<error>(std::move(parts.error()));
  secret_key key;
  key.name_ = std::move(parts->name);
  std::copy(parts->bytes.begin(), parts->bytes.end(), key.bytes_.begin());
  sodium_memzero(parts->bytes.data(), parts->bytes.size());

  // Signing with a public half that does not belong to the seed would give the seed away.
  std::array<std::uint8_t, 32> derived_public{};
  std::array<std::uint8_t, 64> derived_secret{};
  crypto_sign_seed_keypair(derived_public.data(), derived_secret.data(), key.bytes_.data());
  const bool matches = sodium_memcmp(derived_secret.data(), key.bytes_.data(), derived_secret.size()) == 0;
  sodium_memzero(derived_secret.data(), derived_secret.size());
  if (!matches) return fail("cannot parse secret key ", quoted(key.name_), ": its halves do not belong together");
  return key;
}

expected<secret_key> secret_key::generate(std::string name) {
  if (auto checked = check_key_name(name); !checked) return fail_within("cannot make a secret key", checked.error());
  init_sodium();
  secret_key key;
  key.name_ = std::move(name);
  std::array<std::uint8_t, 32> public_bytes{};
  crypto_sign_keypair(public_bytes.data(), key.bytes_.data());
  return key;
}

secret_key::~secret_key() {
  sodium_memzero(bytes_.data(), bytes_.size());
}

std::string secret_key::to_string() const {
  return name_ + ':' + base64_encode(bytes_);
}

public_key secret_key::public_key() const {
  nix::public_key key;
  key.name_ = name_;
  std::copy(bytes_.begin() + 32, bytes_.end(), key.bytes_.begin());
  return key;
}

std::string secret_key::sign(std::string_view fingerprint) const {
  std::array<std::uint8_t, crypto_sign_BYTES> signature{};
  crypto_sign_detached(signature.data(), nullptr, reinterpret_cast<const unsigned char*>(fingerprint.data()),
                       fingerprint.size(), bytes_.data());
  return name_ + ':' + base64_encode(signature);
}

bool verify(std::string_view fingerprint, std::string_view signature, const public_key& key) {
  if (signature_key_name(signature) != key.name_) return false;
  const auto bytes = base64_decode(signature.substr(key.name_.size() + 1));
  if (!bytes || bytes->size() != crypto_sign_BYTES) return false;
  return crypto_sign_verify_detached(bytes->data(), reinterpret_cast<const unsigned char*>(fingerprint.data()),
                                     fingerprint.size(), key.bytes_.data()) == 0;
}

bool verify_any(std::string_view fingerprint, std::span<const std::string> signatures,
                std::span<const public_key> keys) {
  return std::any_of(signatures.begin(), signatures.end(), [&](const std::string& signature) {
    return std::any_of(keys.begin(), keys.end(),
                       [&](const public_key& key) { return verify(fingerprint, signature, key); });
  });
}

std::string_view signature_key_name(std::string_view signature) {
  const auto colon = signature.find(':');
  return colon == signature.npos ? std::string_view{} : signature.substr(0, colon);
}

} // namespace coppice::nix
