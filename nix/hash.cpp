#include "nix/hash.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <stdexcept>

namespace coppice::nix {

namespace {

constexpr std::string_view algo_names[] = {"md5", "sha1", "sha256", "sha512"};

/// Looked up once: EVP_MD_fetch costs microseconds, hashing a derivation not many more.
const EVP_MD* implementation(hash_algo algo) {
  static const std::array<EVP_MD*, 4> fetched = {
      EVP_MD_fetch(nullptr, "MD5", nullptr), EVP_MD_fetch(nullptr, "SHA1", nullptr),
      EVP_MD_fetch(nullptr, "SHA256", nullptr), EVP_MD_fetch(nullptr, "SHA512", nullptr)};
  const auto* found = fetched[static_cast<std::size_t>(algo)];
  if (found == nullptr) throw std::runtime_error("libcrypto does not offer " + std::string{to_string(algo)});
  return found;
}

void start(EVP_MD_CTX* context, hash_algo algo) {
  if (context == nullptr || EVP_DigestInit_ex2(context, implementation(algo), nullptr) != 1)
    throw std::runtime_error("libcrypto cannot start hashing with " + std::string{to_string(algo)});
}

void add(EVP_MD_CTX* context, const void* data, std::size_t size) {
  if (EVP_DigestUpdate(context, data, size) != 1) throw std::runtime_error("libcrypto cannot hash");
}

hash digest_of(EVP_MD_CTX* context, hash_algo algo) {
  std::array<std::uint8_t, EVP_MAX_MD_SIZE> bytes{};
  unsigned size = 0;
  if (EVP_DigestFinal_ex(context, bytes.data(), &size) != 1 || size != digest_bytes(algo))
    throw std::runtime_error("libcrypto cannot finish a digest");
  return {algo, {bytes.data(), size}};
}

expected<hash> decode(hash_algo algo, std::string_view digits, std::string_view text) {
  const auto size = digest_bytes(algo);
  auto decoded = [&]() -> expected<std::vector<std::uint8_t>> {
    if (digits.size() == size * 2) return base16_decode(digits);
    if (digits.size() == (size * 8 - 1) / 5 + 1) return base32_decode(digits);
    if (digits.size() == (size + 2) / 3 * 4) return base64_decode(digits);
    return fail(digits.size(), " digits are no encoding of ", size, " bytes");
  }();
  if (decoded && decoded->size() != size) decoded = fail("its digits give ", decoded->size(), " bytes");
  if (!decoded) return fail_within("cannot parse hash " + quoted(text), decoded.error());
  return hash{algo, *decoded};
}

expected<hash> parse_sri(std::string_view text, std::size_t dash) {
  const auto algo = parse_hash_algo(text.substr(0, dash));
  if (!algo) return fail_within("cannot parse hash " + quoted(text), algo.error());
  const auto digits = text.substr(dash + 1);
  if (digits.size() != (digest_bytes(*algo) + 2) / 3 * 4)
    return fail("cannot parse hash ", quoted(text), ": what follows '-' is no base 64 of its length");
  return decode(*algo, digits, text);
}

} // namespace

std::string_view to_string(hash_algo algo) {
  return algo_names[static_cast<std::size_t>(algo)];
}

expected<hash_algo> parse_hash_algo(std::string_view name) {
  const auto* found = std::find(std::begin(algo_names), std::end(algo_names), name);
  if (found == std::end(algo_names)) return fail("unknown hash algorithm ", quoted(name));
  return static_cast<hash_algo>(found - std::begin(algo_names));
}

hash::hash(hash_algo algo, std::span<const std::uint8_t> bytes) : algo_(algo) {
  if (bytes.size() != digest_bytes(algo)) throw std::invalid_argument("a digest of the wrong length");
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
}

expected<hash> hash::parse(std::string_view text) {
  const auto mark = text.find_first_of(":-");
  if (mark == text.npos) return fail("cannot parse hash ", quoted(text), ": it does not name its algorithm");
  if (text[mark] == '-') return parse_sri(text, mark);
  const auto algo = parse_hash_algo(text.substr(0, mark));
  if (!algo) return fail_within("cannot parse hash " + quoted(text), algo.error());
  return decode(*algo, text.substr(mark + 1), text);
}

expected<hash> hash::parse_any(std::string_view text, hash_algo algo) {
  if (text.find_first_of(":-") == text.npos) return decode(algo, text, text);
  auto parsed = parse(text);
  if (parsed && parsed->algo() != algo)
    return fail("cannot parse hash ", quoted(text), ": expected ", nix::to_string(algo));
  return parsed;
}

sha256_digest hash::sha256() const {
  if (algo_ != hash_algo::sha256) throw std::logic_error("not a sha256: " + to_string());
  sha256_digest digest{};
  std::copy_n(bytes_.begin(), digest.size(), digest.begin());
  return digest;
}

std::string hash::to_string() const {
  return std::string{nix::to_string(algo_)} + ':' + base32();
}

std::string hash::sri() const {
  return std::string{nix::to_string(algo_)} + '-' + base64();
}

void hasher::free_context::operator()(evp_md_ctx_st* context) const {
  EVP_MD_CTX_free(context);
}

hasher::hasher(hash_algo algo) : algo_(algo), context_(EVP_MD_CTX_new()) {
  start(context_.get(), algo_);
}
hasher::~hasher() = default;
hasher::hasher(hasher&&) noexcept = default;
hasher& hasher::operator=(hasher&&) noexcept = default;

void hasher::update(std::string_view data) {
  add(context_.get(), data.data(), data.size());
  size_ += data.size();
}

void hasher::update(std::span<const std::byte> data) {
  add(context_.get(), data.data(), data.size());
  size_ += data.size();
}

hash hasher::finish() {
  const auto digest = digest_of(context_.get(), algo_);
  start(context_.get(), algo_);
  size_ = 0;
  return digest;
}

hash hash_of(hash_algo algo, std::string_view data) {
  struct free_context {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  static thread_local const std::unique_ptr<EVP_MD_CTX, free_context> context{EVP_MD_CTX_new()};
  start(context.get(), algo);
  add(context.get(), data.data(), data.size());
  return digest_of(context.get(), algo);
}

sha256_digest sha256(std::string_view data) {
  return hash_of(hash_algo::sha256, data).sha256();
}

} // namespace coppice::nix
