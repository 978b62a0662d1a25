#include "store/blob_store.hpp"

#include "nix/hash.hpp"

#include <algorithm>
#include <charconv>

namespace coppice::store {

namespace {

constexpr std::size_t read_block_bytes = 256 * 1024;

bool is_key_char(char c) {
  return c > ' ' && c < '\x7f';
}

/// Hands the blob's bytes over in blocks.
expected<void> each_block(blob_reader& blob, const std::function<void(std::string_view)>& take) {
  std::string block(read_block_bytes, '\0');
  for (std::uint64_t at = 0; at < blob.size();) {
    auto got = blob.read(at, block);
    if (!got) return tl::unexpected(got.error());
    if (*got == 0) return fail(ec::corrupt, "the blob ends at byte " + std::to_string(at));
    take(std::string_view{block}.substr(0, *got));
    at += *got;
  }
  return {};
}

} // namespace

expected<void> check_blob_key(std::string_view key) {
  bool ok = !key.empty() && key.size() <= blob_key_bytes_max && std::all_of(key.begin(), key.end(), is_key_char);
  for (std::size_t at = 0; ok && at <= key.size();) {
    const auto slash = std::min(key.find('/', at), key.size());
    ok = slash > at && key[at] != '.';
    at = slash + 1;
  }
  if (ok) return {};
  return fail(ec::invalid, nix::quoted(key) + " is no key of a blob");
}

std::string nar_key(const blob_id& blob, generation gen) {
  return "nar/" + blob.to_string() + "." + std::to_string(gen.value) + ".nar.zst";
}

std::string narinfo_key(const nix::store_path& path) {
  return std::string{path.hash_part()} + ".narinfo";
}

std::string log_key(const nix::store_path& drv) {
  return "log/" + drv.base_name();
}

std::string attempt_log_key(const inhash& key, fence token) {
  return "attempts/" + key.to_string() + "-" + std::to_string(token.value) + ".log";
}

std::string closure_key(const blob_id& closure, generation gen) {
  return "closures/" + closure.to_string() + "." + std::to_string(gen.value);
}

std::optional<blob_id> blob_of_key(std::string_view key) {
  const auto slash = key.find('/');
  if (slash == key.npos) return std::nullopt;
  const auto name = key.substr(slash + 1);
  const auto dot = std::min(name.find('.'), name.size());
  const auto id = blob_id::parse(name.substr(0, dot));
  generation gen;
  const auto digits = name.substr(std::min(dot + 1, name.size()));
  if (!id || std::from_chars(digits.data(), digits.data() + digits.size(), gen.value).ec != std::errc{})
    return std::nullopt;
  if (key != nar_key(*id, gen) && key != closure_key(*id, gen)) return std::nullopt;
  return *id;
}

expected<std::string> read_blob(blob_store& blobs, const std::string& key, std::uint64_t bytes_max) {
  auto blob = blobs.open(key);
  if (!blob) return tl::unexpected(blob.error());
  if ((*blob)->size() > bytes_max)
    return fail(ec::limit_exceeded, "blob " + key + " is larger than " + std::to_string(bytes_max) + " bytes");
  std::string bytes;
  bytes.reserve(static_cast<std::size_t>((*blob)->size()));
  auto read = each_block(**blob, [&](std::string_view block) { bytes += block; });
  if (!read) return fail(read.error().code, "cannot read blob " + key + ": " + read.error().what);
  return bytes;
}

expected<void> verify_blob(blob_store& blobs, const std::string& key, const blob_id& id, std::uint64_t bytes) {
  auto blob = blobs.open(key);
  if (!blob) return tl::unexpected(blob.error());
  if ((*blob)->size() != bytes)
    return fail(ec::corrupt, "blob " + key + " has " + std::to_string((*blob)->size()) + " bytes, expected " +
                                 std::to_string(bytes));
  nix::hasher hasher;
  auto read = each_block(**blob, [&](std::string_view block) { hasher.update(block); });
  if (!read) return fail(read.error().code, "cannot read blob " + key + ": " + read.error().what);
  const blob_id found{hasher.finish().sha256()};
  if (found != id)
    return fail(ec::corrupt, "blob " + key + " has sha256 " + found.to_string() + ", expected " + id.to_string());
  return {};
}

} // namespace coppice::store
