#include "store/kept.hpp"

#include "messages/wire.hpp"
#include "nix/hash.hpp"
#include "store/files.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace coppice::store {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view magic = "coppice-kept-1 ";
constexpr std::size_t digest_chars = 64;
constexpr std::uint64_t entry_bytes_max = 256 << 20;
constexpr wire::limits entry_limits{32, 1 << 23, 128 << 20};

std::string with_checksum(const std::string& body) {
  return std::string{magic} + nix::base16_encode(nix::sha256(body)) + "\n" + body;
}

expected<kept_entry> read_entry(const fs::path& file) {
  auto bytes = read_file(file, entry_bytes_max);
  if (!bytes) return tl::unexpected(bytes.error());
  const auto head = magic.size() + digest_chars + 1;
  const auto body = bytes->size() < head ? std::string{} : bytes->substr(head);
  if (bytes->size() < head || with_checksum(body) != *bytes)
    return fail(ec::corrupt, file.string() + " is torn or no entry of this journal");
  auto entry = wire::decode<kept_entry>(body, entry_limits);
  if (!entry) return fail(ec::corrupt, file.string() + ": " + entry.error().what);
  if (entry->key.to_string() != file.filename())
    return fail(ec::corrupt, file.string() + " holds the entry of " + entry->key.to_string());
  return entry;
}

} // namespace

expected<kept_journal> kept_journal::open(const fs::path& dir) {
  auto opened = make_directories(dir).and_then([&] { return sweep_temporary_files(dir); });
  if (!opened) return tl::unexpected(opened.error());
  return kept_journal{dir};
}

expected<void> kept_journal::add(const kept_entry& entry) {
  return replace_file(dir_ / entry.key.to_string(), with_checksum(wire::encode(entry)));
}

expected<void> kept_journal::remove(const inhash& key) {
  const auto file = dir_ / key.to_string();
  if (::unlink(file.c_str()) == 0 || errno == ENOENT) return {};
  return tl::unexpected(system_error(errno, "cannot remove " + file.string()));
}

expected<kept_listing> kept_journal::list() const {
  std::vector<fs::path> files;
  std::error_code failure;
  for (fs::directory_iterator it{dir_, failure}, end; !failure && it != end; it.increment(failure))
    if (it->path().filename().string().front() != '.') files.push_back(it->path());
  if (failure) return tl::unexpected(system_error(failure.value(), "cannot list " + dir_.string()));
  std::sort(files.begin(), files.end());

  kept_listing listing;
  for (const auto& file : files) {
    auto entry = read_entry(file);
    if (entry)
      listing.entries.push_back(std::move(*entry));
    else if (entry.error().code != ec::missing) // removed meanwhile
      listing.problems.push_back(entry.error().what);
  }
  return listing;
}

} // namespace coppice::store
