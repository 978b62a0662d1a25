#pragma once

#include "messages/errors.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

/// Strong types for every identifier that crosses a function; no implicit conversions.
namespace coppice {

/// An identifier of N raw bytes, written in lower-case hex.
template <class Tag, std::size_t N>
struct bytes_id {
  std::array<std::uint8_t, N> bytes{};

  /// Lower-case hex, 2·N characters.
  std::string to_string() const {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    text.reserve(2 * N);
    for (auto b : bytes) {
      text += digits[b >> 4];
      text += digits[b & 15];
    }
    return text;
  }
  /// The inverse of to_string(); `invalid` unless exactly 2·N lower-case hex digits.
  static expected<bytes_id> parse(std::string_view text) {
    auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
    bytes_id id;
    bool ok = text.size() == 2 * N;
    for (std::size_t i = 0; ok && i < N; ++i) {
      int hi = digit(text[2 * i]), lo = digit(text[2 * i + 1]);
      ok = hi >= 0 && lo >= 0;
      id.bytes[i] = static_cast<std::uint8_t>(hi << 4 | lo);
    }
    if (!ok) return fail(ec::invalid, "'" + std::string(text.substr(0, 100)) + "' is not an id of " + std::to_string(2 * N) + " hex digits");
    return id;
  }
  /// True for the all-zero id, which names nothing.
  bool empty() const { return *this == bytes_id{}; }
  friend auto operator<=>(const bytes_id&, const bytes_id&) = default;
  template <class Inspector>
  friend typename Inspector::result_type inspect(Inspector& f, bytes_id& x) {
    return f(x.bytes);
  }
};

/// A number that is not just any number.
template <class Tag>
struct number_id {
  std::uint64_t value = 0;
  friend auto operator<=>(const number_id&, const number_id&) = default;
  template <class Inspector>
  friend typename Inspector::result_type inspect(Inspector& f, number_id& x) {
    return f(x.value);
  }
};

/// A name that is not just any text.
template <class Tag>
struct text_id {
  std::string value;
  bool empty() const { return value.empty(); }
  friend auto operator<=>(const text_id&, const text_id&) = default;
  template <class Inspector>
  friend typename Inspector::result_type inspect(Inspector& f, text_id& x) {
    return f(x.value);
  }
};

/// Nix's hash modulo of a resolved derivation; the key of the lock.
using inhash = bytes_id<struct inhash_tag, 32>;
/// Chosen by the client at random, so that it may submit again after a lost answer.
using request_id = bytes_id<struct request_tag, 16>;
/// A node's lease in the ledger; drawn at random when the process starts.
using session_id = bytes_id<struct session_tag, 16>;
/// Drawn by an actor at birth: two actors of one session are two askers.
using nonce = bytes_id<struct nonce_tag, 16>;
/// sha256 of a compressed NAR or another file in the store; its name there.
using blob_id = bytes_id<struct blob_tag, 32>;
/// A fencing token: per inhash, only ever rising, handed out by the ledger. 0 means none yet. INV-7
using fence = number_id<struct fence_tag>;
/// Counts the owners of a request; only ever rising. INV-7
using epoch = number_id<struct epoch_tag>;
/// Counts the starts of a node's process.
using incarnation = number_id<struct incarnation_tag>;
/// Counts the lives of a blob's name: a deletion names the generation it was decided for. INV-8
using generation = number_id<struct generation_tag>;
/// A machine's configured name.
using node_id = text_id<struct node_tag>;

template <class T>
inline constexpr bool is_bytes_id = false;
template <class Tag, std::size_t N>
inline constexpr bool is_bytes_id<bytes_id<Tag, N>> = true;
template <class T>
inline constexpr bool is_number_id = false;
template <class Tag>
inline constexpr bool is_number_id<number_id<Tag>> = true;
template <class T>
inline constexpr bool is_text_id = false;
template <class Tag>
inline constexpr bool is_text_id<text_id<Tag>> = true;

} // namespace coppice

template <class Tag, std::size_t N>
struct std::hash<coppice::bytes_id<Tag, N>> {
  std::size_t operator()(const coppice::bytes_id<Tag, N>& id) const noexcept {
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(id.bytes.data()), N});
  }
};
