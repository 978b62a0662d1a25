#pragma once

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/meta/type_name.hpp>

#include <cstdint>
#include <string_view>
#include <tuple>
#include <type_traits>

/// One field list per message struct. From it follow CAF's `inspect`, equality, the bytes on the wire
/// (wire.hpp) and the text for people (text.hpp).
namespace coppice {

/// A field of a struct: its key on the wire (never reused, never changes type), its name for people.
template <class Class, class Member>
struct field {
  std::uint8_t key;
  std::string_view name;
  Member Class::*ptr;
};
template <class Class, class Member>
field(std::uint8_t, const char*, Member Class::*) -> field<Class, Member>;

template <class T>
concept reflected = requires {
  T::struct_fields();
  T::struct_name;
};

/// Calls `f` with each field of T in the order of the list.
template <class T, class F>
constexpr void for_each_field(F&& f) {
  std::apply([&](auto... fs) { (f(fs), ...); }, T::struct_fields());
}

template <class T>
inline constexpr std::size_t field_count = std::tuple_size_v<decltype(T::struct_fields())>;

} // namespace coppice

/// Messages are moved between mailboxes, never serialised by CAF: what crosses a machine goes through wire.hpp. Saying
/// so keeps CAF from instantiating its serialisers for every message, which is most of the compile time.
template <coppice::reflected T>
struct caf::allowed_unsafe_message_type<T> : std::true_type {};

// Pairs of (key, member) become a comma-separated list of fields; up to 32 of them.
#define COPPICE_F_2(T, k, m)                                                                                           \
  ::coppice::field {                                                                                                   \
    k, #m, &T::m                                                                                                       \
  }
#define COPPICE_F_4(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_2(T, __VA_ARGS__)
#define COPPICE_F_6(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_4(T, __VA_ARGS__)
#define COPPICE_F_8(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_6(T, __VA_ARGS__)
#define COPPICE_F_10(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_8(T, __VA_ARGS__)
#define COPPICE_F_12(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_10(T, __VA_ARGS__)
#define COPPICE_F_14(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_12(T, __VA_ARGS__)
#define COPPICE_F_16(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_14(T, __VA_ARGS__)
#define COPPICE_F_18(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_16(T, __VA_ARGS__)
#define COPPICE_F_20(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_18(T, __VA_ARGS__)
#define COPPICE_F_22(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_20(T, __VA_ARGS__)
#define COPPICE_F_24(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_22(T, __VA_ARGS__)
#define COPPICE_F_26(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_24(T, __VA_ARGS__)
#define COPPICE_F_28(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_26(T, __VA_ARGS__)
#define COPPICE_F_30(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_28(T, __VA_ARGS__)
#define COPPICE_F_32(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_30(T, __VA_ARGS__)
#define COPPICE_F_34(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_32(T, __VA_ARGS__)
#define COPPICE_F_36(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_34(T, __VA_ARGS__)
#define COPPICE_F_38(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_36(T, __VA_ARGS__)
#define COPPICE_F_40(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_38(T, __VA_ARGS__)
#define COPPICE_F_42(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_40(T, __VA_ARGS__)
#define COPPICE_F_44(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_42(T, __VA_ARGS__)
#define COPPICE_F_46(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_44(T, __VA_ARGS__)
#define COPPICE_F_48(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_46(T, __VA_ARGS__)
#define COPPICE_F_50(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_48(T, __VA_ARGS__)
#define COPPICE_F_52(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_50(T, __VA_ARGS__)
#define COPPICE_F_54(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_52(T, __VA_ARGS__)
#define COPPICE_F_56(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_54(T, __VA_ARGS__)
#define COPPICE_F_58(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_56(T, __VA_ARGS__)
#define COPPICE_F_60(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_58(T, __VA_ARGS__)
#define COPPICE_F_62(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_60(T, __VA_ARGS__)
#define COPPICE_F_64(T, k, m, ...) COPPICE_F_2(T, k, m), COPPICE_F_62(T, __VA_ARGS__)
#define COPPICE_F_PICK(_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15, _16, _17, _18, _19, _20,      \
                       _21, _22, _23, _24, _25, _26, _27, _28, _29, _30, _31, _32, _33, _34, _35, _36, _37, _38, _39,  \
                       _40, _41, _42, _43, _44, _45, _46, _47, _48, _49, _50, _51, _52, _53, _54, _55, _56, _57, _58,  \
                       _59, _60, _61, _62, _63, _64, N, ...)                                                           \
  COPPICE_F_##N
#define COPPICE_FIELDS(T, ...)                                                                                         \
  COPPICE_F_PICK(__VA_ARGS__, 64, 63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43,  \
                              42, 41, 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21,  \
                              20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)                   \
  (T, __VA_ARGS__)

// Inside the struct's body, last: COPPICE_STRUCT(job, 1, drv, 2, inputs). `inspect` is a hidden friend,
// so that argument-dependent look-up finds it and nothing else sees it.
#define COPPICE_STRUCT(T, ...)                                                                                         \
  static constexpr std::string_view struct_name = #T;                                                                  \
  static constexpr auto struct_fields() {                                                                              \
    return std::tuple{COPPICE_FIELDS(T, __VA_ARGS__)};                                                                 \
  }                                                                                                                    \
  template <class Inspector>                                                                                           \
  friend typename Inspector::result_type inspect(Inspector& f, T& x) {                                                 \
    return std::apply([&](auto... fs) { return f(caf::meta::type_name(#T), x.*(fs.ptr)...); }, T::struct_fields());    \
  }                                                                                                                    \
  friend bool operator==(const T&, const T&) = default;

/// A struct without fields, for messages that say all by their name.
#define COPPICE_EMPTY_STRUCT(T)                                                                                        \
  static constexpr std::string_view struct_name = #T;                                                                  \
  static constexpr auto struct_fields() {                                                                              \
    return std::tuple<>{};                                                                                             \
  }                                                                                                                    \
  template <class Inspector>                                                                                           \
  friend typename Inspector::result_type inspect(Inspector& f, T&) {                                                   \
    return f(caf::meta::type_name(#T));                                                                                \
  }                                                                                                                    \
  friend bool operator==(const T&, const T&) = default;
