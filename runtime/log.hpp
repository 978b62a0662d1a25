#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

/// The process's log: lines `time level ACTOR message key=value` on standard error, written by a thread of their own.
namespace coppice::rt::log {

enum class level : std::uint8_t { debug, info, warn, error, off };
/// "debug", "info", "warn", "error" or "off".
std::optional<level> parse_level(std::string_view text);

struct options {
  level least = level::info;    ///< what is less important is dropped before it is formatted
  std::size_t queue_max = 8192; ///< lines waiting to be written; when full the oldest is dropped and counted
};

/// Starts writing. Before this call, and after close(), lines are dropped. Call once, before other threads start.
void open(const options& o);
/// Writes what waits and stops.
void close();
/// Changes the level of a running log.
void set_level(level least);
bool enabled(level l);
/// Lines lost because the queue was full.
std::size_t dropped();
/// Tests: lines go to `f` instead, on the thread that logs; empty ends it.
void divert(std::function<void(level, std::string_view actor, std::string_view text)> f);

/// Takes one line; control characters are escaped, so that no data can forge a line. Never blocks.
void write(level l, std::string_view actor, std::string_view text);

template <class... Ts>
void put(level l, std::string_view actor, fmt::format_string<Ts...> f, Ts&&... xs) {
  if (enabled(l)) write(l, actor, fmt::format(f, std::forward<Ts>(xs)...));
}
/// `log::info("GATEWAY", "request admitted id={}", id)`: actors in capitals, facts as key=value.
template <class... Ts>
void debug(std::string_view actor, fmt::format_string<Ts...> f, Ts&&... xs) {
  put(level::debug, actor, f, std::forward<Ts>(xs)...);
}
template <class... Ts>
void info(std::string_view actor, fmt::format_string<Ts...> f, Ts&&... xs) {
  put(level::info, actor, f, std::forward<Ts>(xs)...);
}
template <class... Ts>
void warn(std::string_view actor, fmt::format_string<Ts...> f, Ts&&... xs) {
  put(level::warn, actor, f, std::forward<Ts>(xs)...);
}
template <class... Ts>
void error(std::string_view actor, fmt::format_string<Ts...> f, Ts&&... xs) {
  put(level::error, actor, f, std::forward<Ts>(xs)...);
}

} // namespace coppice::rt::log
