#include "nix/store_path.hpp"

#include <algorithm>
#include <array>

namespace coppice::nix {

namespace {

constexpr auto name_chars = [] {
  std::array<bool, 256> allowed{};
  for (const unsigned char c : std::string_view{"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?="})
    allowed[c] = true;
  return allowed;
}();

bool is_name_char(char c) {
  return name_chars[static_cast<unsigned char>(c)];
}

std::string hex(const sha256_digest& digest) {
  return base16_encode(digest);
}

/// The digest of a path's fingerprint, folded to the 20 bytes that its 32 characters hold.
std::string folded(const sha256_digest& digest) {
  std::array<std::uint8_t, 20> fold{};
  for (std::size_t i = 0; i < digest.size(); ++i)
    fold[i % fold.size()] = static_cast<std::uint8_t>(fold[i % fold.size()] ^ digest[i]);
  return base32_encode(fold);
}

std::string type_with_references(std::string type, const std::set<store_path>& references, bool self,
                                 std::string_view store_dir) {
  for (const auto& reference : references) {
    type += ':';
    type += reference.to_string(store_dir);
  }
  if (self) type += ":self";
  return type;
}

} // namespace

expected<void> check_store_name(std::string_view name) {
  if (name.empty()) return fail("a store path's name is empty");
  if (name.size() > store_name_bytes_max)
    return fail("store path name ", quoted(name), " has ", name.size(), " bytes, more than ", store_name_bytes_max);
  if (name == "." || name == ".." || name.starts_with(".-") || name.starts_with("..-"))
    return fail("store path name ", quoted(name), " starts like a directory entry");
  const auto wrong = std::find_if_not(name.begin(), name.end(), is_name_char);
  if (wrong != name.end())
    return fail("store path name ", quoted(name), " holds ", quoted({&*wrong, 1}), " at byte ", wrong - name.begin());
  return {};
}

store_path::store_path() : base_name_("00000000000000000000000000000000-x") {}

expected<store_path> store_path::parse(std::string_view path, std::string_view store_dir) {
  if (!path.starts_with(store_dir) || path.size() == store_dir.size() || path[store_dir.size()] != '/')
    return fail("cannot parse store path ", quoted(path), ": not in ", store_dir);
  return from_base_name(path.substr(store_dir.size() + 1));
}

expected<store_path> store_path::from_base_name(std::string_view base_name) {
  if (base_name.size() <= hash_part_chars || base_name[hash_part_chars] != '-')
    return fail("cannot parse store path ", quoted(base_name), ": not 32 characters, '-' and a name");
  if (!std::all_of(base_name.begin(), base_name.begin() + hash_part_chars, is_base32))
    return fail("cannot parse store path ", quoted(base_name), ": its hash part is not base 32");
  if (const auto checked = check_store_name(base_name.substr(hash_part_chars + 1)); !checked)
    return fail_within("cannot parse store path " + quoted(base_name), checked.error());
  return store_path{std::string{base_name}};
}

std::string store_path::to_string(std::string_view store_dir) const {
  std::string out;
  out.reserve(store_dir.size() + 1 + base_name_.size());
  out += store_dir;
  out += '/';
  out += base_name_;
  return out;
}

expected<store_path> make_store_path(std::string_view type, const sha256_digest& inner, std::string_view name,
                                     std::string_view store_dir) {
  if (const auto checked = check_store_name(name); !checked)
    return fail_within("cannot make a store path", checked.error());
  std::string text{type};
  text += ":sha256:";
  text += hex(inner);
  text += ':';
  text += store_dir;
  text += ':';
  text += name;
  return store_path::from_base_name(folded(sha256(text)) + '-' + std::string{name});
}

expected<store_path> text_path(std::string_view name, std::string_view contents, const std::set<store_path>& references,
                               std::string_view store_dir) {
  return text_path(name, sha256(contents), references, store_dir);
}

expected<store_path> text_path(std::string_view name, const sha256_digest& contents_hash,
                               const std::set<store_path>& references, std::string_view store_dir) {
  return make_store_path(type_with_references("text", references, false, store_dir), contents_hash, name, store_dir);
}

expected<store_path> source_path(std::string_view name, const sha256_digest& nar_hash,
                                 const std::set<store_path>& references, bool self, std::string_view store_dir) {
  return make_store_path(type_with_references("source", references, self, store_dir), nar_hash, name, store_dir);
}

expected<store_path> fixed_output_path(std::string_view name, content_method method, const hash& content,
                                       const std::set<store_path>& references, bool self, std::string_view store_dir) {
  const bool recursive = method == content_method::recursive;
  if (recursive && content.algo() == hash_algo::sha256)
    return source_path(name, content.sha256(), references, self, store_dir);
  if (!references.empty() || self)
    return fail("cannot make a store path for ", quoted(name), ": contents addressed by ", recursive ? "r:" : "",
                to_string(content.algo()), " cannot have references");
  std::string inner = "fixed:out:";
  if (recursive) inner += "r:";
  inner += to_string(content.algo());
  inner += ':';
  inner += content.base16();
  inner += ':';
  return make_store_path("output:out", sha256(inner), name, store_dir);
}

} // namespace coppice::nix
