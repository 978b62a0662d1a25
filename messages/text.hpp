#pragma once

#include "messages/ids.hpp"
#include "messages/reflect.hpp"
#include "messages/shared.hpp"
#include "messages/store_path.hpp"

#include <optional>
#include <string>
#include <variant>
#include <vector>

/// Messages as text for people who debug: `poll_request{id: 1111…, after: 3, wait_ms: 0}`. Nothing parses it.
namespace coppice {

namespace text {
inline constexpr std::size_t string_bytes_max = 200; ///< of one string; the rest is "…"
inline constexpr std::size_t elements_max = 20;      ///< of one container; the rest is counted

/// `s` in double quotes, cut, with control characters, quotes and bytes above 126 escaped.
std::string quoted(std::string_view s);

template <class T>
void put(std::string& out, const T& x);

template <class T>
void put_elements(std::string& out, const T& xs) {
  std::size_t n = 0;
  out += '[';
  for (const auto& x : xs) {
    if (n > 0) out += ", ";
    if (n++ == elements_max) {
      out += "… " + std::to_string(xs.size() - elements_max) + " more";
      break;
    }
    put(out, x);
  }
  out += ']';
}

template <class T>
void put_struct(std::string& out, const T& x) {
  out += T::struct_name;
  out += '{';
  bool first = true;
  for_each_field<T>([&](auto f) {
    if (!first) out += ", ";
    first = false;
    out += f.name;
    out += ": ";
    put(out, x.*(f.ptr));
  });
  out += '}';
}

template <class T>
inline constexpr bool is_variant = false;
template <class... Ts>
inline constexpr bool is_variant<std::variant<Ts...>> = true;

template <class T>
void put(std::string& out, const T& x) {
  if constexpr (reflected<T>)
    put_struct(out, x);
  else if constexpr (std::is_same_v<T, bool>)
    out += x ? "true" : "false";
  else if constexpr (std::is_arithmetic_v<T>)
    out += std::to_string(x);
  else if constexpr (std::is_enum_v<T> && requires { to_string(x); })
    out += to_string(x);
  else if constexpr (std::is_enum_v<T>)
    out += std::to_string(static_cast<unsigned>(x));
  else if constexpr (std::is_same_v<T, std::string>)
    out += quoted(x);
  else if constexpr (std::is_same_v<T, nix::store_path>)
    out += x.base_name();
  else if constexpr (is_bytes_id<T>)
    out += x.to_string();
  else if constexpr (is_number_id<T>)
    out += std::to_string(x.value);
  else if constexpr (is_text_id<T>)
    out += quoted(x.value);
  else if constexpr (is_shared<T>)
    put(out, *x);
  else if constexpr (is_variant<T>)
    std::visit([&](const auto& v) { put(out, v); }, x);
  else if constexpr (requires { x.has_value(); }) {
    if (x)
      put(out, *x);
    else
      out += "none";
  } else if constexpr (requires { typename T::mapped_type; }) {
    out += '{';
    for (const auto& [k, v] : x) {
      put(out, k);
      out += ": ";
      put(out, v);
      out += ", ";
    }
    out += '}';
  } else
    put_elements(out, x);
}
} // namespace text

/// Debug text of a message.
template <reflected T>
std::string to_text(const T& x) {
  std::string out;
  text::put(out, x);
  return out;
}

} // namespace coppice
