#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace coppice::sim {

using std::chrono::nanoseconds;

/// The time that all machines of a simulation share, what happens in it, and a trace of that. Not a clock that any
/// machine can see: each has its own (machine::local).
class timeline {
public:
  explicit timeline(bool prints) : prints_(prints) {}
  timeline(const timeline&) = delete;
  timeline& operator=(const timeline&) = delete;

  nanoseconds now() const { return now_; }
  void after(nanoseconds delay, std::function<void()> f) { events_.emplace(now_ + delay, std::move(f)); }
  std::optional<nanoseconds> next() const {
    if (events_.empty()) return {};
    return events_.begin()->first;
  }
  /// Time is `t` from now on, unless it is later already, and what is due happens.
  void pass(nanoseconds t) {
    now_ = std::max(now_, t);
    note(static_cast<std::uint64_t>(now_.count()));
    while (!events_.empty() && events_.begin()->first <= now_) {
      auto f = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      f();
    }
  }

  /// Mixes into the trace's hash what happened.
  void note(std::uint64_t x) { hash_ = (hash_ ^ x) * 0x100000001b3ull; }
  /// A line of the trace, for people too.
  template <class... Ts>
  void tell(std::string_view format, const Ts&... xs) {
    const auto line = fmt::format(fmt::runtime(format), xs...);
    for (const char c : line)
      note(static_cast<unsigned char>(c));
    if (prints_) std::fprintf(stderr, "%12.6f %s\n", static_cast<double>(now_.count()) / 1e9, line.c_str());
  }
  bool prints() const { return prints_; }
  std::uint64_t hash() const { return hash_; }

private:
  const bool prints_;
  nanoseconds now_{0};
  std::multimap<nanoseconds, std::function<void()>> events_;
  std::uint64_t hash_ = 14695981039346656037ull;
};

} // namespace coppice::sim
