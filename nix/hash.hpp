#pragma once

#include "nix/error.hpp"

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct evp_md_ctx_st;

namespace coppice::nix {

/// The hash algorithms that occur in Nix formats.
enum class hash_algo : std::uint8_t { md5, sha1, sha256, sha512 };

/// The name as Nix writes it, e.g. "sha256".
std::string_view to_string(hash_algo algo);

/// The algorithm of that name; fails for any other text.
expected<hash_algo> parse_hash_algo(std::string_view name);

/// Digest length in bytes: 16, 20, 32 or 64.
constexpr std::size_t digest_bytes(hash_algo algo) {
  constexpr std::size_t sizes[] = {16, 20, 32, 64};
  return sizes[static_cast<std::size_t>(algo)];
}

using sha256_digest = std::array<std::uint8_t, 32>;

/// Lower-case hexadecimal.
std::string base16_encode(std::span<const std::uint8_t> bytes);

/// Bytes of hexadecimal text of either case; fails on odd length or another character.
expected<std::vector<std::uint8_t>> base16_decode(std::string_view text);

/// Nix's base 32: alphabet without e, o, t, u; the last character holds the lowest five bits.
std::string base32_encode(std::span<const std::uint8_t> bytes);

/// Bytes of Nix's base 32; fails on another character, an impossible length, or surplus bits that are not zero.
expected<std::vector<std::uint8_t>> base32_decode(std::string_view text);

/// RFC 4648 base 64 with padding.
std::string base64_encode(std::span<const std::uint8_t> bytes);

/// Bytes of padded base 64; fails on white space, missing padding or surplus bits that are not zero.
expected<std::vector<std::uint8_t>> base64_decode(std::string_view text);

/// Whether `c` is one of the 32 characters of Nix's base 32.
bool is_base32(char c);

/// A digest and the algorithm that made it; ordered by algorithm, then by bytes.
class hash {
public:
  /// A sha256 of 32 zero bytes, to be assigned to.
  hash() = default;

  /// Takes exactly digest_bytes(algo) bytes; throws std::invalid_argument for another number.
  hash(hash_algo algo, std::span<const std::uint8_t> bytes);

  /// A sha256.
  explicit hash(const sha256_digest& digest) : hash(hash_algo::sha256, digest) {}

  /// Reads "algo:b16", "algo:b32", "algo:b64" (told apart by their lengths) or "algo-b64" (SRI).
  static expected<hash> parse(std::string_view text);

  /// Like parse, but the prefix may be missing; when present it must name `algo`.
  static expected<hash> parse_any(std::string_view text, hash_algo algo);

  hash_algo algo() const { return algo_; }

  /// The digest_bytes(algo()) bytes of the digest.
  std::span<const std::uint8_t> bytes() const& { return {bytes_.data(), digest_bytes(algo_)}; }
  std::span<const std::uint8_t> bytes() const&& = delete; // it would dangle

  /// The bytes as a sha256; throws std::logic_error for another algorithm.
  sha256_digest sha256() const;

  std::string base16() const { return base16_encode(bytes()); }
  std::string base32() const { return base32_encode(bytes()); }
  std::string base64() const { return base64_encode(bytes()); }

  /// "sha256:<base 32>", the form of narinfos.
  std::string to_string() const;

  /// "sha256-<base 64>", the form of hash-mismatch messages.
  std::string sri() const;

  auto operator<=>(const hash&) const = default;

private:
  hash_algo algo_ = hash_algo::sha256;
  std::array<std::uint8_t, 64> bytes_{}; // zero beyond the digest, so that comparing all of it is right
};

/// Hashes a stream of bytes; movable, used once.
class hasher {
public:
  /// Starts; throws std::runtime_error if libcrypto refuses the algorithm (as in FIPS mode for md5).
  explicit hasher(hash_algo algo = hash_algo::sha256);
  ~hasher();
  hasher(hasher&&) noexcept;
  hasher& operator=(hasher&&) noexcept;

  void update(std::string_view data);
  void update(std::span<const std::byte> data);

  /// Bytes hashed so far.
  std::uint64_t size() const { return size_; }

  /// The digest of all bytes, after which the hasher starts again at zero bytes.
  hash finish();

private:
  struct free_context {
    void operator()(evp_md_ctx_st* context) const;
  };
  hash_algo algo_;
  std::uint64_t size_ = 0;
  std::unique_ptr<evp_md_ctx_st, free_context> context_;
};

/// The sha256 of `data`.
sha256_digest sha256(std::string_view data);

/// The hash of `data` by `algo`.
hash hash_of(hash_algo algo, std::string_view data);

} // namespace coppice::nix
