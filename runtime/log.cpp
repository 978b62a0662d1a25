#include "runtime/log.hpp"

#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace coppice::rt::log {

namespace {

using diversion = std::function<void(level, std::string_view, std::string_view)>;

struct state {
  std::mutex mutex; // guards the pointers; lines are queued under it, which never blocks
  std::shared_ptr<spdlog::details::thread_pool> threads;
  std::shared_ptr<spdlog::async_logger> logger;
  diversion divert;
  std::atomic<level> least{level::off};
  level opened_at = level::off;
};

state& the() {
  static state s;
  return s;
}

spdlog::level::level_enum to_spdlog(level l) {
  switch (l) {
  case level::debug: return spdlog::level::debug;
  case level::info: return spdlog::level::info;
  case level::warn: return spdlog::level::warn;
  case level::error: return spdlog::level::err;
  case level::off: return spdlog::level::off;
  }
  return spdlog::level::off;
}

std::string escaped(std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    const auto b = static_cast<unsigned char>(c);
    if (c == '\n')
      out += "\\n";
    else if (b < 0x20 || b == 0x7f)
      (((out += "\\x") += digits[b >> 4]) += digits[b & 15]);
    else
      out += c;
  }
  return out;
}

} // namespace

std::optional<level> parse_level(std::string_view text) {
  if (text == "debug") return level::debug;
  if (text == "info") return level::info;
  if (text == "warn") return level::warn;
  if (text == "error") return level::error;
  if (text == "off") return level::off;
  return std::nullopt;
}

void open(const options& o) {
  auto& s = the();
  std::lock_guard lock{s.mutex};
  s.threads = std::make_shared<spdlog::details::thread_pool>(o.queue_max, 1);
  s.logger = std::make_shared<spdlog::async_logger>("coppice", std::make_shared<spdlog::sinks::stderr_sink_mt>(),
                                                    s.threads, spdlog::async_overflow_policy::overrun_oldest);
  s.logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
  s.logger->set_level(spdlog::level::trace);
  s.least = s.opened_at = o.least;
}

void close() {
  auto& s = the();
  std::shared_ptr<spdlog::details::thread_pool> threads;
  {
    std::lock_guard lock{s.mutex};
    s.least = level::off;
    s.logger.reset();
    threads.swap(s.threads);
  }
  threads.reset(); // joins after everything queued has been written
}

void set_level(level least) {
  the().least = least;
}

bool enabled(level l) {
  return l >= the().least.load(std::memory_order_relaxed) && l != level::off;
}

std::size_t dropped() {
  auto& s = the();
  std::lock_guard lock{s.mutex};
  return s.threads ? s.threads->overrun_counter() : 0;
}

void divert(diversion f) {
  auto& s = the();
  std::lock_guard lock{s.mutex};
  s.least = f ? level::debug : s.opened_at;
  s.divert = std::move(f);
}

void write(level l, std::string_view actor, std::string_view text) {
  if (!enabled(l)) return;
  auto& s = the();
  std::lock_guard lock{s.mutex};
  if (s.divert) return s.divert(l, escaped(actor), escaped(text));
  if (s.logger) s.logger->log(to_spdlog(l), "{} {}", escaped(actor), escaped(text));
}

} // namespace coppice::rt::log
