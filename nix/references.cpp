#include "nix/references.hpp"

#include "nix/hash.hpp"

#include <algorithm>
#include <cstring>

namespace coppice::nix {

namespace {

/// The filter's bit for a window that starts with these eight bytes.
std::size_t filter_bit(const char* window) {
  std::uint64_t first = 0;
  std::memcpy(&first, window, sizeof first);
  return static_cast<std::size_t>((first * 0x9e3779b97f4a7c15u) >> 48);
}

} // namespace

reference_scanner::reference_scanner(const std::set<store_path>& candidates) {
  for (const auto& path : candidates) {
    const auto bit = filter_bit(path.hash_part().data());
    filter_[bit / 64] |= std::uint64_t{1} << bit % 64;
    candidates_[std::string{path.hash_part()}].paths.push_back(path);
  }
}

void reference_scanner::feed(std::string_view chunk) {
  const auto border = chunk.substr(0, hash_part_chars - 1);
  tail_ += border;
  scan(tail_);
  if (chunk.size() >= hash_part_chars) {
    scan(chunk);
    tail_ = chunk.substr(chunk.size() - (hash_part_chars - 1));
  } else if (tail_.size() >= hash_part_chars) {
    tail_.erase(0, tail_.size() - (hash_part_chars - 1));
  }
}

/// Looks at the last byte of a window first: one that is no base 32 rules out 32 windows at once.
void reference_scanner::scan(std::string_view text) {
  std::size_t known = 0; // bytes at the window's start known to be base 32
  for (std::size_t at = 0; at + hash_part_chars <= text.size();) {
    auto end = hash_part_chars;
    while (end > known && is_base32(text[at + end - 1]))
      --end;
    if (end > known) {
      at += end;
      known = hash_part_chars - end;
      continue;
    }
    check(text.data() + at);
    ++at;
    known = hash_part_chars - 1;
  }
}

void reference_scanner::check(const char* window) {
  const auto bit = filter_bit(window);
  if ((filter_[bit / 64] >> bit % 64 & 1) == 0) return;
  const auto found = candidates_.find(std::string{window, hash_part_chars});
  if (found != candidates_.end()) found->second.seen = true;
}

std::set<store_path> reference_scanner::found() const {
  std::set<store_path> paths;
  for (const auto& [hash_part, held] : candidates_)
    if (held.seen) paths.insert(held.paths.begin(), held.paths.end());
  return paths;
}

} // namespace coppice::nix
