#include "nix/narinfo.hpp"

#include <algorithm>
#include <charconv>
#include <functional>

namespace coppice::nix {

namespace {

expected<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc{} || end != text.data() + text.size()) return fail(quoted(text), " is no number of bytes");
  return number;
}

expected<std::set<store_path>> parse_references(std::string_view text) {
  std::set<store_path> paths;
  while (!text.empty()) {
    const auto space = std::min(text.find(' '), text.size());
    if (space > 0) {
      auto path = store_path::from_base_name(text.substr(0, space));
      if (!path) return tl::unexpected<error>(std::move(path.error()));
      paths.insert(std::move(*path));
    }
    text.remove_prefix(std::min(space + 1, text.size()));
  }
  return paths;
}

/// "<method><hash>" of a `ca` field.
struct content_address {
  bool text = false;
  content_method method = content_method::flat;
  hash digest;
};

expected<content_address> parse_content_address(std::string_view ca) {
  content_address parsed;
  auto rest = ca;
  const auto skip = [&](std::string_view word) {
    const bool there = rest.starts_with(word);
    if (there) rest.remove_prefix(word.size());
    return there;
  };
  if (skip("text:"))
    parsed.text = true;
  else if (!skip("fixed:"))
    return fail("cannot parse content address ", quoted(ca), ": neither 'text:' nor 'fixed:'");
  if (!parsed.text && skip("r:")) parsed.method = content_method::recursive;
  auto digest = hash::parse(rest);
  if (!digest) return fail_within("cannot parse content address " + quoted(ca), digest.error());
  if (parsed.text && digest->algo() != hash_algo::sha256)
    return fail("cannot parse content address ", quoted(ca), ": a text's hash is a sha256");
  parsed.digest = *digest;
  return parsed;
}

/// Takes the fields of one narinfo.
class parser {
public:
  explicit parser(std::string_view store_dir) : store_dir_(store_dir) { info_.compression.clear(); }

  expected<void> line(std::string_view text) {
    const auto colon = text.find(':');
    if (colon == text.npos) return fail("no ':' in line ", quoted(text));
    const auto key = text.substr(0, colon);
    if (text.substr(colon + 1, 1) != " ") return fail("no space after ", quoted(text.substr(0, colon + 1)));
    const auto value = text.substr(colon + 2);
    if (value.ends_with('\r')) return fail("field ", quoted(key), " ends in a carriage return");
    if (auto read = field(key, value); !read) return fail_within("field " + quoted(key), read.error());
    return {};
  }

  expected<narinfo> finish() {
    for (const auto* key : {"StorePath", "URL", "NarHash", "NarSize"})
      if (!seen_.contains(std::string_view{key})) return fail("field '", key, "' is missing");
    if (info_.compression.empty()) info_.compression = "bzip2"; // what the format's first version meant
    return std::move(info_);
  }

private:
  template <class T>
  expected<void> set(T& target, expected<T> value) {
    if (!value) return tl::unexpected<error>(std::move(value.error()));
    target = std::move(*value);
    return {};
  }

  template <class T>
  expected<void> set(std::optional<T>& target, expected<T> value) {
    return set(target.emplace(), std::move(value));
  }

  expected<void> field(std::string_view key, std::string_view value) {
    if (key == "Sig") {
      info_.sigs.emplace_back(value);
      return {};
    }
    if (!seen_.emplace(key).second) return fail("stated twice");
    if (key == "StorePath") return set(info_.path, store_path::parse(value, store_dir_));
    if (key == "URL") return set(info_.url, text(value));
    if (key == "Compression") return set(info_.compression, text(value));
    if (key == "FileHash") return set(info_.file_hash, hash::parse(value));
    if (key == "FileSize") return set(info_.file_size, parse_number(value));
    if (key == "NarHash") return set(info_.nar_hash, sha256_only(value));
    if (key == "NarSize") return set(info_.nar_size, parse_number(value).and_then(not_zero));
    if (key == "References") return set(info_.references, parse_references(value));
    if (key == "Deriver") return deriver(value);
    if (key == "System") return set(info_.system, expected<std::string>{value});
    if (key == "CA") return ca(value);
    return {}; // ignored: an unknown field, as Nix ignores it
  }

  static expected<std::string> text(std::string_view value) {
    if (value.empty()) return fail("empty");
    return std::string{value};
  }

  static expected<std::uint64_t> not_zero(std::uint64_t number) {
    if (number == 0) return fail("0");
    return number;
  }

  static expected<hash> sha256_only(std::string_view value) {
    auto parsed = hash::parse(value);
    if (parsed && parsed->algo() != hash_algo::sha256) return fail(quoted(value), " is no sha256");
    return parsed;
  }

  expected<void> deriver(std::string_view value) {
    if (value == "unknown-deriver") return {};
    return set(info_.deriver, store_path::from_base_name(value));
  }

  expected<void> ca(std::string_view value) {
    if (value.empty()) return {};
    if (auto parsed = parse_content_address(value); !parsed) return tl::unexpected<error>(std::move(parsed.error()));
    info_.ca = value;
    return {};
  }

  std::string_view store_dir_;
  narinfo info_;
  std::set<std::string, std::less<>> seen_;
};

} // namespace

std::string path_fingerprint(const store_path& path, const hash& nar_hash, std::uint64_t nar_size,
                             const std::set<store_path>& references, std::string_view store_dir) {
  auto out = "1;" + path.to_string(store_dir) + ';' + nar_hash.to_string() + ';' + std::to_string(nar_size);
  char separator = ';';
  for (const auto& reference : references) {
    out += separator;
    out += reference.to_string(store_dir);
    separator = ',';
  }
  if (references.empty()) out += ';';
  return out;
}

std::string narinfo::fingerprint(std::string_view store_dir) const {
  return path_fingerprint(path, nar_hash, nar_size, references, store_dir);
}

expected<narinfo> parse_narinfo(std::string_view text, std::string_view store_dir) {
  parser fields{store_dir};
  auto rest = text;
  while (!rest.empty()) {
    const auto end = rest.find('\n');
    if (end == rest.npos) return fail("cannot parse narinfo: the last line does not end");
    if (auto read = fields.line(rest.substr(0, end)); !read) return fail_within("cannot parse narinfo", read.error());
    rest.remove_prefix(end + 1);
  }
  auto info = fields.finish();
  if (!info) return fail_within("cannot parse narinfo", info.error());
  return info;
}

std::string print_narinfo(const narinfo& info, std::string_view store_dir) {
  std::string out;
  const auto line = [&](std::string_view key, std::string_view value) {
    out += key;
    out += ": ";
    out += value;
    out += '\n';
  };
  line("StorePath", info.path.to_string(store_dir));
  line("URL", info.url);
  line("Compression", info.compression);
  if (info.file_hash) line("FileHash", info.file_hash->to_string());
  if (info.file_size != 0) line("FileSize", std::to_string(info.file_size));
  line("NarHash", info.nar_hash.to_string());
  line("NarSize", std::to_string(info.nar_size));
  std::string references;
  for (const auto& reference : info.references) {
    if (!references.empty()) references += ' ';
    references += reference.base_name();
  }
  line("References", references); // the space after ':' stays when there is none: Nix reads past the line without it
  if (info.deriver) line("Deriver", info.deriver->base_name());
  if (!info.system.empty()) line("System", info.system);
  for (const auto& sig : info.sigs)
    line("Sig", sig);
  if (!info.ca.empty()) line("CA", info.ca);
  return out;
}

expected<bool> content_address_matches(const narinfo& info, std::string_view store_dir) {
  const auto ca = parse_content_address(info.ca);
  if (!ca) return tl::unexpected<error>(ca.error());
  auto others = info.references;
  const bool self = others.erase(info.path) > 0;
  if (ca->text && self) return false; // a text cannot hold its own path
  const auto path = ca->text ? text_path(info.path.name(), ca->digest.sha256(), others, store_dir)
                             : fixed_output_path(info.path.name(), ca->method, ca->digest, others, self, store_dir);
  return path && *path == info.path; // ignored: the reason why no path follows; then none matches
}

} // namespace coppice::nix
