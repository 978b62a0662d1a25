#pragma once

#include "nix/error.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace coppice::nix {

/// An ed25519 key that verifies signatures, with its name.
class public_key {
public:
  /// Reads "<name>:<base 64 of 32 bytes>".
  static expected<public_key> parse(std::string_view text);

  const std::string& name() const { return name_; }
  std::string to_string() const;

  bool operator==(const public_key&) const = default;

private:
  friend class secret_key;
  friend bool verify(std::string_view, std::string_view, const public_key&);
  public_key() = default;
  std::string name_;
  std::array<std::uint8_t, 32> bytes_{};
};

/// An ed25519 key that signs, with its name; its bytes are erased when it goes.
class secret_key {
public:
  /// Reads "<name>:<base 64 of 64 bytes>" (seed and public key, as Nix keeps it); one final newline is ignored. Errors
  /// never quote the text.
  static expected<secret_key> parse(std::string_view text);

  /// A new random key; fails for a name that is empty or holds ':' or white space.
  static expected<secret_key> generate(std::string name);

  secret_key(const secret_key&) = default;
  secret_key& operator=(const secret_key&) = default;
  ~secret_key();

  const std::string& name() const { return name_; }

  /// The key file's text; the caller keeps it secret.
  std::string to_string() const;

  /// The key that verifies what this one signs.
  nix::public_key public_key() const;

  /// "<name>:<base 64 of the signature>" over these bytes.
  std::string sign(std::string_view fingerprint) const;

private:
  secret_key() = default;
  std::string name_;
  std::array<std::uint8_t, 64> bytes_{};
};

/// Whether `signature` has the key's name and is valid for these bytes; false also for a malformed one.
bool verify(std::string_view fingerprint, std::string_view signature, const public_key& key);

/// Whether one of `keys` verifies one of `signatures`.
bool verify_any(std::string_view fingerprint, std::span<const std::string> signatures,
                std::span<const public_key> keys);

/// The key name of a signature: what stands before ':'; empty if there is no ':'.
std::string_view signature_key_name(std::string_view signature);

} // namespace coppice::nix
