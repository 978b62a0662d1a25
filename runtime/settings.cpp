#include "runtime/settings.hpp"

#include "messages/utf8.hpp"

#include <fmt/core.h>
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>

namespace coppice::rt {

namespace settings {

namespace {

const toml::node& node_of(const value& v) {
  return *static_cast<const toml::node*>(v.node);
}

tl::unexpected<error> wrong_at(const std::string& file, unsigned line, std::string_view key, std::string_view what) {
  return fail(ec::invalid, fmt::format("{}:{}: {}{}{}", file, line, key, key.empty() ? "" : ": ", what));
}

/// What toml++ 3.3 does with a third of the characters up to U+FEFF is undefined, in strings too
/// (is_non_ascii_horizontal_whitespace). So it gets each byte outside ASCII as one character of plane 16, where nothing
/// has a meaning, and of what it returns we take them back.
std::string disguised(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80)
      out += c;
    else
      out += {'\xf4', '\x80', static_cast<char>(0x80 | byte >> 6), static_cast<char>(0x80 | (byte & 0x3f))};
  }
  return out;
}

/// U+100000 + byte back to the byte.
std::string undisguised(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto c = first_of(text);
    const bool is_byte = c.valid && c.code >= 0x100080 && c.code <= 0x1000ff;
    if (is_byte)
      out += static_cast<char>(c.code & 0xff);
    else
      out += text.substr(0, c.bytes);
    text.remove_prefix(c.bytes);
  }
  return out;
}

std::string_view kind(const toml::node& n) {
  switch (n.type()) {
  case toml::node_type::table: return "a table";
  case toml::node_type::array: return "a list";
  case toml::node_type::string: return "a string";
  case toml::node_type::integer: return "an integer";
  case toml::node_type::floating_point: return "a float";
  case toml::node_type::boolean: return "a boolean";
  default: return "a date or time";
  }
}

tl::unexpected<error> not_a(const value& v, std::string_view wanted) {
  return wrong(v, fmt::format("expected {}, found {}", wanted, kind(node_of(v))));
}

/// Least number of inserted, removed and replaced characters that turn `a` into `b`.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      auto replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({replaced, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return row[b.size()];
}

std::string advice(std::string_view unknown, std::span<const setting> known) {
  auto nearer = [&](const setting& a, const setting& b) {
    return distance(unknown, a.name) < distance(unknown, b.name);
  };
  auto nearest = std::min_element(known.begin(), known.end(), nearer);
  if (nearest == known.end()) return "unknown key; none is known here";
  return fmt::format("unknown key; the nearest known one is '{}'", nearest->name);
}

struct unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr unit size_units[] = {{"", 1},
                               {"B", 1},
                               {"kB", 1000},
                               {"MB", 1000'000},
                               {"GB", 1000'000'000},
                               {"TB", 1000'000'000'000},
                               {"KiB", 1ull << 10},
                               {"MiB", 1ull << 20},
                               {"GiB", 1ull << 30},
                               {"TiB", 1ull << 40}};
constexpr unit time_units[] = {{"ns", 1},
                               {"us", 1000},
                               {"ms", 1000'000},
                               {"s", 1000'000'000},
                               {"min", 60ull * 1000'000'000},
                               {"h", 3600ull * 1000'000'000},
                               {"d", 86400ull * 1000'000'000}};

/// "64 MiB" or "64MiB" times the unit's factor; nothing if it has another form or exceeds `max`.
std::optional<std::uint64_t> scaled(std::string_view text, std::span<const unit> units, std::uint64_t max) {
  std::uint64_t n = 0;
  auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (bad != std::errc{}) return {};
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.starts_with(' ')) text.remove_prefix(1);
  for (const auto& u : units) {
    if (u.name == text && n <= max / u.factor) return n * u.factor;
  }
  return {};
}

} // namespace

tl::unexpected<error> wrong(const value& v, std::string_view what) {
  return wrong_at(v.file, node_of(v).source().begin.line, v.key, what);
}

expected<void> get(const value& v, bool& x) {
  auto b = node_of(v).value_exact<bool>();
  if (!b) return not_a(v, "true or false");
  x = *b;
  return {};
}

expected<void> get(const value& v, std::string& x) {
  auto s = node_of(v).value_exact<std::string>();
  if (!s) return not_a(v, "a string");
  if (s->find('\0') != std::string::npos) return wrong(v, "contains a NUL character");
  x = undisguised(*s);
  if (!is_utf8(x)) return wrong(v, "is not UTF-8");
  return {};
}

expected<void> get(const value& v, double& x) {
  auto d = node_of(v).value<double>();
  if (!d || !node_of(v).is_number()) return not_a(v, "a number");
  if (!std::isfinite(*d)) return wrong(v, "not a finite number");
  x = *d;
  return {};
}

expected<void> get(const value& v, std::filesystem::path& x) {
  std::string s;
  auto ok = get(v, s);
  if (ok) x = s;
  return ok;
}

expected<std::int64_t> get_integer(const value& v, std::int64_t min, std::int64_t max) {
  auto n = node_of(v).value_exact<std::int64_t>();
  if (!n) return not_a(v, "an integer");
  if (*n < min || *n > max) return wrong(v, fmt::format("{} is out of range, {} to {} are allowed", *n, min, max));
  return *n;
}

expected<std::uint64_t> get_size(const value& v, std::uint64_t max) {
  if (auto text = node_of(v).value_exact<std::string_view>()) {
    if (auto n = scaled(*text, size_units, max)) return *n;
    return wrong(v, fmt::format("'{}' is not a size like \"64 MiB\" of at most {}", *text, max));
  }
  auto limit = std::min<std::uint64_t>(max, std::numeric_limits<std::int64_t>::max());
  auto n = get_integer(v, 0, static_cast<std::int64_t>(limit));
  if (!n) return tl::unexpected(n.error());
  return static_cast<std::uint64_t>(*n);
}

expected<std::chrono::nanoseconds> get_duration(const value& v, std::chrono::nanoseconds unit) {
  auto text = node_of(v).value_exact<std::string_view>();
  if (!text) return not_a(v, "a duration like \"30 s\"");
  auto n = scaled(*text, time_units, std::numeric_limits<std::int64_t>::max());
  if (!n) return wrong(v, fmt::format("'{}' is not a duration like \"30 s\"; units: ns us ms s min h d", *text));
  std::chrono::nanoseconds d{static_cast<std::int64_t>(*n)};
  if (d.count() % unit.count() != 0) {
    return wrong(v, fmt::format("'{}' is finer than the unit used here, {} ms", *text, unit.count() / 1'000'000));
  }
  return d;
}

expected<std::size_t> get_choice(const value& v, std::span<const std::string_view> names) {
  std::string s;
  if (auto ok = get(v, s); !ok) return tl::unexpected(ok.error());
  auto i = std::find(names.begin(), names.end(), s);
  if (i != names.end()) return static_cast<std::size_t>(i - names.begin());
  std::string known;
  for (auto n : names)
    known += (known.empty() ? "" : ", ") + std::string{n};
  return wrong(v, fmt::format("'{}' is none of {}", s, known));
}

expected<void> get_array(const value& v, void* target, expected<void> (*read)(const value&, void*), bool or_string) {
  if (const auto* one = node_of(v).as_string(); one && or_string) return one->get().empty() ? expected<void>{} : read(v, target);
  const auto* list = node_of(v).as_array();
  if (!list) return not_a(v, "a list");
  std::size_t i = 0;
  for (const auto& e : *list) {
    if (auto ok = read({&e, v.file, fmt::format("{}[{}]", v.key, i++)}, target); !ok) return ok;
  }
  return {};
}

expected<void> get_struct(const value& v, void* x, std::span<const setting> known) {
  const auto* table = node_of(v).as_table();
  if (!table) return not_a(v, "a table");
  for (const auto& [key, node] : *table) {
    auto full = v.key.empty() ? undisguised(key.str()) : fmt::format("{}.{}", v.key, undisguised(key.str()));
    auto s = std::find_if(known.begin(), known.end(), [name = key.str()](const auto& k) { return k.name == name; });
    if (s == known.end()) return wrong_at(v.file, key.source().begin.line, full, advice(key.str(), known));
    if (auto ok = s->read({&node, v.file, full}, x); !ok) return ok;
  }
  return {};
}

expected<void> parse(std::string_view text, const std::string& file, void* x, std::span<const setting> known) {
  constexpr std::string_view mark = "\xef\xbb\xbf"; // of UTF-8; may begin a file
  if (text.starts_with(mark)) text.remove_prefix(mark.size());
  try {
    toml::table document = toml::parse(disguised(text), file);
    return get_struct({&document, file, ""}, x, known);
  } catch (const toml::parse_error& e) {
    return wrong_at(file, e.source().begin.line, "", undisguised(e.description()));
  }
}

expected<std::string> load(const std::filesystem::path& path) {
  std::ifstream in{path, std::ios::binary};
  if (!in) {
    int why = errno;
    return fail(why == ENOENT ? ec::not_found : ec::io,
                fmt::format("cannot open {}: {}", path.string(), std::strerror(why)));
  }
  std::string text(settings_bytes_max + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return fail(ec::io, fmt::format("cannot read {}", path.string()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > settings_bytes_max) {
    return fail(ec::invalid, fmt::format("{} is larger than {} bytes", path.string(), settings_bytes_max));
  }
  return text;
}

} // namespace settings

std::string toml_quoted(std::string_view s) {
  std::string out = "\"";
  for (char c : s) {
    auto b = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += '\\';
    if (b < 0x20 || b == 0x7f)
      out += fmt::format("\\u{:04x}", b);
    else
      out += c;
  }
  return out + '"';
}

std::string toml_quoted(const std::vector<std::string>& list) {
  std::string out = "[";
  for (const auto& s : list)
    out += (out.size() > 1 ? ", " : "") + toml_quoted(s);
  return out + "]";
}

} // namespace coppice::rt
