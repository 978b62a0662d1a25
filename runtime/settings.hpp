#pragma once

#include "messages/errors.hpp"
#include "messages/ids.hpp"
#include "messages/reflect.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// TOML into a struct with a field list, by field name. Absent keys keep the struct's defaults; unknown keys are errors
/// that name file, line and the nearest known key.
///
/// Strings, booleans, integers within the range of their type, sizes as integers or "64 MiB", durations as "30 s",
/// enums by their to_string, lists (one string may stand without brackets), nested structs as tables, lists of structs as
/// arrays of tables.
namespace coppice::rt {

/// Larger settings files are refused.
inline constexpr std::size_t settings_bytes_max = 1 << 20;

namespace settings {

/// One TOML value, and where it stands for error texts.
struct value {
  const void* node; ///< a toml::node
  const std::string& file;
  std::string key; ///< dotted, e.g. "worker.slots"
};
struct setting {
  std::string_view name;
  expected<void> (*read)(const value&, void* target);
};

/// "node.toml:7: worker.slots: what".
tl::unexpected<error> wrong(const value& v, std::string_view what);

expected<void> get(const value& v, bool& x);
expected<void> get(const value& v, std::string& x);
expected<void> get(const value& v, double& x);
expected<void> get(const value& v, std::filesystem::path& x);
expected<void> get_struct(const value& v, void* x, std::span<const setting> settings);
expected<std::int64_t> get_integer(const value& v, std::int64_t min, std::int64_t max);
/// Also a string with a unit: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.
expected<std::uint64_t> get_size(const value& v, std::uint64_t max);
/// A string with a unit: ns, us, ms, s, min, h, d; never negative; a whole number of `unit`.
expected<std::chrono::nanoseconds> get_duration(const value& v, std::chrono::nanoseconds unit);
/// The index of the string among `names`.
expected<std::size_t> get_choice(const value& v, std::span<const std::string_view> names);
/// Calls `read(element, target)` for each element of an array; `or_string`: also of one string without (none if empty).
expected<void> get_array(const value& v, void* target, expected<void> (*read)(const value&, void*), bool or_string);
/// Parses a document and reads it into a struct.
expected<void> parse(std::string_view text, const std::string& file, void* x, std::span<const setting> settings);
expected<std::string> load(const std::filesystem::path& path);

template <class T>
expected<void> get_any(const value& v, void* target);

template <class T>
inline constexpr bool is_duration = false;
template <class R, class P>
inline constexpr bool is_duration<std::chrono::duration<R, P>> = true;
template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

template <class T, std::size_t... Is>
constexpr std::array<setting, sizeof...(Is)> all_of(std::index_sequence<Is...>) {
  return {setting{std::get<Is>(T::struct_fields()).name, [](const value& v, void* x) {
                    constexpr auto member = std::get<Is>(T::struct_fields()).ptr;
                    auto& target = static_cast<T*>(x)->*member;
                    return get_any<std::remove_reference_t<decltype(target)>>(v, &target);
                  }}...};
}
template <class T>
inline constexpr auto of = all_of<T>(std::make_index_sequence<field_count<T>>{});

template <class E>
expected<void> get_enum(const value& v, E& x) {
  std::array<std::string_view, static_cast<std::size_t>(E::last_) + 1> names;
  for (std::size_t i = 0; i < names.size(); ++i)
    names[i] = to_string(static_cast<E>(i));
  auto i = get_choice(v, names);
  if (i) x = static_cast<E>(*i);
  return i ? expected<void>{} : tl::unexpected(i.error());
}

template <class T>
expected<void> get_number(const value& v, T& x) {
  auto put = [&](auto n) -> expected<void> {
    if (!n) return tl::unexpected(n.error());
    x = static_cast<T>(*n);
    return {};
  };
  if constexpr (std::is_unsigned_v<T>)
    return put(get_size(v, std::numeric_limits<T>::max()));
  else
    return put(get_integer(v, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
}

template <class T>
expected<void> get_any(const value& v, void* target) {
  auto& x = *static_cast<T*>(target);
  if constexpr (reflected<T>)
    return get_struct(v, target, of<T>);
  else if constexpr (std::is_enum_v<T>)
    return get_enum(v, x);
  else if constexpr (is_duration<T>) {
    auto d = get_duration(v, T{1});
    if (!d) return tl::unexpected(d.error());
    x = std::chrono::duration_cast<T>(*d);
    return {};
  } else if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
    return get_number(v, x);
  else if constexpr (is_optional<T>)
    return get_any<typename T::value_type>(v, &x.emplace());
  else if constexpr (is_text_id<T>)
    return get(v, x.value);
  else if constexpr (is_vector<T>) {
    x.clear();
    const auto read = [](const value& e, void* list) {
      return get_any<typename T::value_type>(e, &static_cast<T*>(list)->emplace_back());
    };
    return get_array(v, target, read, std::is_same_v<typename T::value_type, std::string>);
  } else
    return get(v, x);
}

} // namespace settings

/// Reads a TOML text; `name` stands for the file in errors. `invalid` with place and reason.
template <reflected T>
expected<T> from_toml(std::string_view text, const std::string& name) {
  T x{};
  if (auto ok = settings::parse(text, name, &x, settings::of<T>); !ok) return tl::unexpected(ok.error());
  return x;
}

/// Reads a settings file; not_found or io if it cannot be read.
template <reflected T>
expected<T> read_settings(const std::filesystem::path& path) {
  auto text = settings::load(path);
  if (!text) return tl::unexpected(text.error());
  return from_toml<T>(*text, path.string());
}

/// `s` as a TOML string with its quotes, for files that we write; a list likewise.
std::string toml_quoted(std::string_view s);
std::string toml_quoted(const std::vector<std::string>& list);

} // namespace coppice::rt
