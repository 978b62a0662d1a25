#pragma once

#include "nix/error.hpp"
#include "nix/hash.hpp"

#include <compare>
#include <cstddef>
#include <functional>
#include <set>
#include <string>
#include <string_view>

namespace coppice::nix {

/// The store directory whose paths public caches serve; it is part of every store path's hash.
inline constexpr std::string_view default_store_dir = "/nix/store";

/// Characters of a store path's hash part.
inline constexpr std::size_t hash_part_chars = 32;

/// Longest name of a store path, in bytes.
inline constexpr std::size_t store_name_bytes_max = 211;

/// Checks a store path's name: 1 to 211 of 0-9a-zA-Z+-._?=, and not ".", "..", ".-…" or "..-…".
expected<void> check_store_name(std::string_view name);

/// A path right below a store directory, which is kept apart: always 32 base-32 characters, '-', a valid name.
class store_path {
public:
  /// The path "000…0-x", to be assigned to.
  store_path();

  /// Reads "<store_dir>/<hash part>-<name>"; fails for anything above, below or outside it.
  static expected<store_path> parse(std::string_view path, std::string_view store_dir = default_store_dir);

  /// Reads "<hash part>-<name>".
  static expected<store_path> from_base_name(std::string_view base_name);

  std::string_view hash_part() const { return std::string_view{base_name_}.substr(0, hash_part_chars); }
  std::string_view name() const { return std::string_view{base_name_}.substr(hash_part_chars + 1); }
  const std::string& base_name() const { return base_name_; }

  /// The full path.
  std::string to_string(std::string_view store_dir = default_store_dir) const;

  /// Whether the name ends in ".drv".
  bool is_derivation() const { return name().ends_with(".drv"); }

  /// By base name, bytewise, which is also the order of full paths.
  auto operator<=>(const store_path&) const = default;

private:
  explicit store_path(std::string base_name) : base_name_(std::move(base_name)) {}
  std::string base_name_;
};

/// How the hash of content-addressed data is taken: of a file's bytes, or of the NAR.
enum class content_method { flat, recursive };

/// The path with that type, inner digest and name; fails only for an invalid name.
expected<store_path> make_store_path(std::string_view type, const sha256_digest& inner, std::string_view name,
                                     std::string_view store_dir = default_store_dir);

/// The path of a text (a derivation, builtins.toFile) with these contents and references.
expected<store_path> text_path(std::string_view name, std::string_view contents, const std::set<store_path>& references,
                               std::string_view store_dir = default_store_dir);

/// The path of a text whose contents have that sha256.
expected<store_path> text_path(std::string_view name, const sha256_digest& contents_hash,
                               const std::set<store_path>& references, std::string_view store_dir = default_store_dir);

/// The path of a tree whose NAR (self-references zeroed) has that sha256; `self` says whether it has such references.
expected<store_path> source_path(std::string_view name, const sha256_digest& nar_hash,
                                 const std::set<store_path>& references = {}, bool self = false,
                                 std::string_view store_dir = default_store_dir);

/// The path of content-addressed data; fails for references unless the method is recursive and the hash a sha256.
expected<store_path> fixed_output_path(std::string_view name, content_method method, const hash& content,
                                       const std::set<store_path>& references = {}, bool self = false,
                                       std::string_view store_dir = default_store_dir);

} // namespace coppice::nix

template <>
struct std::hash<coppice::nix::store_path> {
  std::size_t operator()(const coppice::nix::store_path& path) const noexcept {
    return std::hash<std::string>{}(path.base_name());
  }
};
