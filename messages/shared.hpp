#pragma once

#include <memory>
#include <utility>

namespace coppice {

/// A value that never changes once made, and costs nothing to copy: copies share it. On the wire it is the value.
template <class T>
class shared {
public:
  shared() : value_(none()) {}
  shared(T x) : value_(std::make_shared<const T>(std::move(x))) {}
  shared(const shared&) = default; // and no moves: they would leave no value behind
  shared& operator=(const shared&) = default;
  const T& operator*() const { return *value_; }
  const T* operator->() const { return value_.get(); }
  operator const T&() const { return *value_; }
  friend bool operator==(const shared& a, const shared& b) { return a.value_ == b.value_ || *a == *b; }
  template <class Inspector>
  friend typename Inspector::result_type inspect(Inspector& f, shared& x) {
    auto copy = *x;
    return f(copy);
  }

private:
  static const std::shared_ptr<const T>& none() {
    static const auto empty = std::make_shared<const T>();
    return empty;
  }
  std::shared_ptr<const T> value_;
};

template <class T>
inline constexpr bool is_shared = false;
template <class T>
inline constexpr bool is_shared<shared<T>> = true;

} // namespace coppice
