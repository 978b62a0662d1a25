#pragma once

#include <tl/expected.hpp>

#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>

namespace coppice::nix {

/// Why an operation on a Nix format failed, as one sentence that names what was tried on what.
struct error {
  std::string what;
};

/// A value, or the reason why there is none.
template <class T>
using expected = tl::expected<T, error>;

namespace detail {

inline void append(std::string& out, std::string_view part) {
  out += part;
}
inline void append(std::string& out, char part) {
  out += part;
}

template <std::integral Number>
requires(!std::same_as<Number, char> && !std::same_as<Number, bool>) void append(std::string& out, Number part) {
  out += std::to_string(part);
}

} // namespace detail

/// The failure whose text is all parts (strings, characters, integers) one after the other.
template <class... Parts>
[[nodiscard]] tl::unexpected<error> fail(const Parts&... parts) {
  std::string what;
  (detail::append(what, parts), ...);
  return tl::unexpected<error>(error{std::move(what)});
}

/// Passes a failure on with `prefix` and ": " before its text.
[[nodiscard]] inline tl::unexpected<error> fail_within(std::string_view prefix, const error& cause) {
  return fail(prefix, ": ", cause.what);
}

/// `bytes` in single quotes, control bytes and quotes escaped, cut after 80 bytes: fit for an error text.
std::string quoted(std::string_view bytes);

} // namespace coppice::nix
