#pragma once

#include "messages/errors.hpp"
#include "messages/ids.hpp"
#include "messages/reflect.hpp"
#include "messages/shared.hpp"
#include "messages/store_path.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

/// The bytes of messages: msgpack, made and read by msgpack-cxx, driven by the field lists (reflect.hpp).
///
/// A struct is a map from field key to value; unknown keys are skipped and absent ones leave the default, so that
/// versions N-1 and N understand each other. Enums are numbers up to their last_; ids are bin, uint or str; store
/// paths are base names; optionals are nil or the value; vectors and sets are arrays; a variant is [index, value].
namespace coppice::wire {

/// Bounds on what is read, checked before anything is allocated for it (INV-14).
struct limits {
  std::size_t depth_max = 32;             ///< nested arrays and maps
  std::size_t elements_max = 1 << 19;     ///< values of all kinds in one message
  std::size_t string_bytes_max = 4 << 20; ///< one string or binary; a derivation's text is the longest there is
};

/// Collects bytes; every call adds one value or the head of a container.
class writer {
public:
  void nil();
  void boolean(bool x);
  void uint(std::uint64_t x);
  void sint(std::int64_t x);
  void real(double x);
  void str(std::string_view x);
  void bin(std::span<const std::uint8_t> x);
  void array(std::size_t n); ///< n values follow
  void map(std::size_t n);   ///< n pairs follow
  std::string take() { return std::move(bytes_); }

private:
  std::string bytes_;
};

/// Walks the values of one message, which has been parsed and found within its limits as a whole. Each call reads one
/// value and returns false, with error() set, if it is of another kind.
class reader {
public:
  /// Keeps pointers into `bytes`. On failure every later call fails.
  reader(std::string_view bytes, const limits& l);

  bool is_nil() const;
  bool nil();
  bool boolean(bool& x);
  bool uint(std::uint64_t& x, std::uint64_t max);
  bool sint(std::int64_t& x, std::int64_t min, std::int64_t max);
  bool real(double& x);                ///< an integer will do; NaN and infinities are refused
  bool str(std::string& x);            ///< str or bin
  bool view(std::string_view& x);      ///< likewise, where it lies
  bool bin(std::span<std::uint8_t> x); ///< exactly so many bytes
  bool array(std::size_t& n);
  bool map(std::size_t& n);
  bool store_path(nix::store_path& x);
  /// Passes over one value of any kind.
  void skip();

  /// Notes why; false.
  bool fail(std::string why);
  /// Notes where it failed, from the inside out: "[3]", then ".events"; false.
  bool failed_at(std::string_view place);
  /// Why reading a `what` failed, e.g. "cannot read request_progress.events[3].drv: expected a string, found nil".
  error take_error(std::string_view what) const;

private:
  enum class kind : std::uint8_t { nil, boolean, uint, sint, real, str, bin, array, map };
  struct node {
    kind what;
    std::uint32_t next = 0;   ///< index of the node after this one and all it contains
    std::uint64_t number = 0; ///< the value's bits; of strings and containers the size
    const char* data = nullptr;
  };
  class builder;
  static std::string_view name(kind k);
  /// The next node if it is of kind `k`, and passes over its head; else null, and failed.
  const node* take(kind k);
  bool wrong(std::string_view wanted);

  std::vector<node> nodes_; ///< empty after a failure
  std::size_t at_ = 0;
  std::string why_;
  std::string where_;
};

template <class T>
void write(writer& w, const T& x);
template <class T>
bool read(reader& r, T& x);

namespace detail {

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_set = false;
template <class T>
inline constexpr bool is_set<std::set<T>> = true;
template <class T>
inline constexpr bool is_map = false;
template <class K, class V>
inline constexpr bool is_map<std::map<K, V>> = true;
template <class T>
inline constexpr bool is_variant = false;
template <class... Ts>
inline constexpr bool is_variant<std::variant<Ts...>> = true;

/// A field with its types erased, so that the loops over fields are compiled once.
struct field_ops {
  std::uint8_t key;
  std::string_view name;
  void (*write)(writer&, const void*);
  bool (*read)(reader&, void*);
};
void write_struct(writer& w, const void* x, std::span<const field_ops> fields);
bool read_struct(reader& r, void* x, std::span<const field_ops> fields);
/// Reads the head of a variant: an index below `count`.
bool read_index(reader& r, std::size_t& index, std::size_t count);

template <class T, std::size_t I>
constexpr field_ops ops_of() {
  constexpr auto f = std::get<I>(T::struct_fields());
  return {f.key, f.name,
          [](writer& w, const void* x) {
            wire::write(w, static_cast<const T*>(x)->*(std::get<I>(T::struct_fields()).ptr));
          },
          [](reader& r, void* x) { return wire::read(r, static_cast<T*>(x)->*(std::get<I>(T::struct_fields()).ptr)); }};
}
template <class T, std::size_t... Is>
constexpr std::array<field_ops, sizeof...(Is)> all_ops(std::index_sequence<Is...>) {
  return {ops_of<T, Is>()...};
}
template <class T>
inline constexpr auto ops = all_ops<T>(std::make_index_sequence<field_count<T>>{});

template <class V, std::size_t I>
bool read_alternative(reader& r, V& x) {
  return wire::read(r, x.template emplace<I>());
}
template <class V, std::size_t... Is>
bool read_variant(reader& r, V& x, std::index_sequence<Is...>) {
  static constexpr bool (*alternatives[])(reader&, V&) = {&read_alternative<V, Is>...};
  std::size_t index = 0;
  return read_index(r, index, sizeof...(Is)) && alternatives[index](r, x);
}

template <class T>
bool read_integer(reader& r, T& x) {
  if constexpr (std::is_unsigned_v<T>) {
    std::uint64_t v = 0;
    if (!r.uint(v, std::numeric_limits<T>::max())) return false;
    x = static_cast<T>(v);
  } else {
    std::int64_t v = 0;
    if (!r.sint(v, std::numeric_limits<T>::min(), std::numeric_limits<T>::max())) return false;
    x = static_cast<T>(v);
  }
  return true;
}

template <class T>
bool read_elements(reader& r, T& x) {
  std::size_t n = 0;
  if (!r.array(n)) return false;
  x.clear();
  if constexpr (is_vector<T>) x.reserve(std::min<std::size_t>(n, 1024)); // a large element costs one byte to announce
  for (std::size_t i = 0; i < n; ++i) {
    typename T::value_type v{};
    if (!read(r, v)) return r.failed_at("[" + std::to_string(i) + "]");
    x.insert(x.end(), std::move(v));
  }
  return true;
}

template <class T>
bool read_pairs(reader& r, T& x) {
  std::size_t n = 0;
  if (!r.map(n)) return false;
  x.clear();
  while (n-- > 0) {
    typename T::key_type k{};
    typename T::mapped_type v{};
    if (!read(r, k) || !read(r, v)) return false;
    x.insert_or_assign(std::move(k), std::move(v));
  }
  return true;
}

} // namespace detail

template <class T>
void write(writer& w, const T& x) {
  if constexpr (reflected<T>)
    detail::write_struct(w, &x, detail::ops<T>);
  else if constexpr (std::is_same_v<T, bool>)
    w.boolean(x);
  else if constexpr (std::is_enum_v<T>)
    w.uint(static_cast<std::uint64_t>(x));
  else if constexpr (std::is_unsigned_v<T>)
    w.uint(x);
  else if constexpr (std::is_integral_v<T>)
    w.sint(x);
  else if constexpr (std::is_same_v<T, double>)
    w.real(x);
  else if constexpr (std::is_same_v<T, std::string>)
    w.str(x);
  else if constexpr (std::is_same_v<T, nix::store_path>)
    w.str(x.base_name());
  else if constexpr (is_bytes_id<T>)
    w.bin(x.bytes);
  else if constexpr (is_number_id<T>)
    w.uint(x.value);
  else if constexpr (is_text_id<T>)
    w.str(x.value);
  else if constexpr (is_shared<T>)
    write(w, *x);
  else if constexpr (detail::is_optional<T>) {
    if (x)
      write(w, *x);
    else
      w.nil();
  } else if constexpr (detail::is_vector<T> || detail::is_set<T>) {
    w.array(x.size());
    for (const auto& e : x)
      write(w, e);
  } else if constexpr (detail::is_map<T>) {
    w.map(x.size());
    for (const auto& [k, v] : x) {
      write(w, k);
      write(w, v);
    }
  } else if constexpr (detail::is_variant<T>) {
    w.array(2);
    w.uint(x.index());
    std::visit([&](const auto& v) { write(w, v); }, x);
  } else
    static_assert(!sizeof(T), "this type cannot go on the wire");
}

template <class T>
bool read(reader& r, T& x) {
  if constexpr (reflected<T>)
    return detail::read_struct(r, &x, detail::ops<T>);
  else if constexpr (std::is_same_v<T, bool>)
    return r.boolean(x);
  else if constexpr (std::is_enum_v<T>) {
    static_assert(std::is_unsigned_v<std::underlying_type_t<T>>, "enums on the wire are unsigned and name their last_");
    std::uint64_t v = 0;
    if (!r.uint(v, static_cast<std::uint64_t>(T::last_))) return false;
    x = static_cast<T>(v);
    return true;
  } else if constexpr (std::is_integral_v<T>)
    return detail::read_integer(r, x);
  else if constexpr (std::is_same_v<T, double>)
    return r.real(x);
  else if constexpr (std::is_same_v<T, std::string>)
    return r.str(x);
  else if constexpr (std::is_same_v<T, nix::store_path>)
    return r.store_path(x);
  else if constexpr (is_bytes_id<T>)
    return r.bin(x.bytes);
  else if constexpr (is_number_id<T>)
    return r.uint(x.value, std::numeric_limits<std::uint64_t>::max());
  else if constexpr (is_text_id<T>)
    return r.str(x.value);
  else if constexpr (is_shared<T>) {
    std::decay_t<decltype(*x)> value{};
    if (!read(r, value)) return false;
    x = std::move(value);
    return true;
  }
  else if constexpr (detail::is_optional<T>) {
    x.reset();
    return r.is_nil() ? r.nil() : read(r, x.emplace());
  } else if constexpr (detail::is_vector<T> || detail::is_set<T>)
    return detail::read_elements(r, x);
  else if constexpr (detail::is_map<T>)
    return detail::read_pairs(r, x);
  else if constexpr (detail::is_variant<T>) {
    return detail::read_variant(r, x, std::make_index_sequence<std::variant_size_v<T>>{});
  } else
    static_assert(!sizeof(T), "this type cannot come off the wire");
}

/// The bytes of a message.
template <class T>
std::string encode(const T& x) {
  writer w;
  write(w, x);
  return w.take();
}

/// Reads exactly one message; `bad_message` with the reason for anything else, trailing bytes included. Never throws.
template <class T>
expected<T> decode(std::string_view bytes, const limits& l = {}) {
  reader r{bytes, l};
  T x{};
  std::string_view name = "value";
  if constexpr (reflected<T>) name = T::struct_name;
  if (!read(r, x)) return tl::unexpected(r.take_error(name));
  return x;
}

} // namespace coppice::wire
