#include "apps/common/display.hpp"

#include "nix/derivation.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace coppice::app {
namespace {

/// Lines of the block at most, on however high a terminal.
constexpr std::size_t block_lines_max = 16;

std::string with_duration(std::int64_t ms) {
  return ms > 0 ? fmt::format(" ({})", duration_text(std::chrono::milliseconds{ms})) : std::string{};
}

/// Columns that `text` takes; escape sequences take none.
std::size_t visible_columns(const std::string& text) {
  return columns(cleaned(text));
}

} // namespace

std::string short_name(const nix::store_path& drv) {
  return std::string(drv.is_derivation() ? nix::derivation_name(drv) : drv.name());
}

std::optional<std::string> display::line_of(const step_event& event) {
  const auto name = short_name(event.drv);
  const bool on = options_.colours;
  const auto first_line = event.text.substr(0, event.text.find('\n'));
  const auto reason = first_line.empty() ? std::string(to_string(event.failure)) : cleaned(first_line);
  switch (event.state) {
  case step_state::failed:
    return fmt::format("{} {}: {}{}", painted(colour::red, "failed", on), name, reason,
                       with_duration(event.duration_ms));
  case step_state::built:
    if (options_.quiet) return {};
    return fmt::format("{} {}{}", painted(colour::green, "built", on), name, with_duration(event.duration_ms));
  case step_state::partial:
    if (options_.quiet) return {};
    return fmt::format("{} {}, it waits to be uploaded{}{}", painted(colour::yellow, "built", on), name,
                       event.text.empty() ? "" : ": ", cleaned(event.text));
  case step_state::building:
    if (options_.quiet || options_.live) return {};
    return fmt::format("building {}{}{}", name, event.node.empty() ? "" : " on ", cleaned(event.node.value));
  case step_state::queued:
  case step_state::planned:
    if (options_.quiet || event.text.empty()) return {};
    return fmt::format("{} {}: {}", painted(colour::yellow, "waiting", on), name, reason);
  case step_state::reused:
  case step_state::not_attempted: return {}; // they count; a line each would hide what happens
  }
  return {};
}

std::vector<std::string> display::take(const request_progress& news, time_point now) {
  std::vector<std::string> lines;
  if (away_ && !options_.live && !options_.quiet) lines.push_back(fmt::format("{} answers again", away_->endpoint));
  away_.reset();
  counts_ = news.counts;
  running_ = news.running;
  received_ = now;
  if (news.lost && !lost_told_ && !options_.quiet) lines.emplace_back("(earlier events are no longer kept)");
  lost_told_ = lost_told_ || news.lost;
  for (const auto& event : news.events) {
    auto line = line_of(event);
    if (!line) continue;
    auto& told = last_told_[event.drv];
    if (told == *line) continue;
    told = *line;
    lines.push_back(std::move(*line));
  }
  return lines;
}

std::vector<std::string> display::away(const std::string& endpoint, time_point now) {
  const bool first = !away_;
  if (first) away_ = absence{endpoint, now};
  away_->endpoint = endpoint;
  if (!first || options_.live || options_.quiet) return {};
  return {fmt::format("waiting for {}", endpoint)};
}

std::string display::counts_text() const {
  std::string text = fmt::format("{}/{} built", counts_.built, counts_.total);
  const auto add = [&](std::uint64_t count, std::string_view what) {
    if (count) text += fmt::format(" · {} {}", count, what);
  };
  add(counts_.building, "running");
  add(counts_.queued, "queued");
  add(counts_.planned, "waiting for inputs");
  add(counts_.failed, "failed");
  add(counts_.not_attempted, "not attempted");
  add(counts_.reused, "reused");
  return text;
}

std::string display::running_line(const running_step& step, time_point now, std::size_t width) const {
  const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(now - received_);
  const auto elapsed = std::chrono::milliseconds{step.elapsed_ms} + std::max(since, std::chrono::milliseconds{0});
  const auto time = elapsed.count() < 10'000 ? fmt::format("{} s", elapsed.count() / 1000) : duration_text(elapsed);
  auto line =
      fmt::format("{} · {}{}{}", short_name(step.drv), time, step.phase.empty() ? "" : " · ", cleaned(step.phase));
  if (!step.node.empty()) line += fmt::format(" · {}", cleaned(step.node.value));
  line = fitted("  " + line, width);
  const auto used = columns(line);
  const auto last = cleaned(step.last_line);
  if (last.empty() || used + 8 > width) return line;
  return line + painted(colour::dim, fitted(" · " + last, width - used), options_.colours);
}

std::vector<std::string> display::block(time_point now, screen_size size) const {
  if (!options_.live || options_.quiet || size.width < 2 || size.height < 2) return {};
  const auto width = size.width - 1; // a full line would make some terminals wrap
  const auto room = std::min(size.height - 1, block_lines_max) - 1;
  std::vector<std::string> lines;
  const auto shown = running_.size() <= room ? running_.size() : room - std::min<std::size_t>(room, 1);
  for (std::size_t i = 0; i < shown; ++i)
    lines.push_back(running_line(running_[i], now, width));
  if (shown < running_.size() && room > 0)
    lines.push_back(fitted(fmt::format("  … and {} more", running_.size() - shown), width));
  if (away_) {
    const auto since = std::chrono::duration_cast<std::chrono::seconds>(now - away_->since);
    const auto text = fmt::format("waiting for {} ({} s)", away_->endpoint, since.count());
    lines.push_back(painted(colour::yellow, fitted(text, width), options_.colours));
  } else {
    lines.push_back(painted(colour::bold, fitted("[" + counts_text() + "]", width), options_.colours));
  }
  return lines;
}

std::size_t live_block::rows_on(std::size_t width) const {
  std::size_t rows = 0;
  for (const auto line : drawn_)
    rows += std::max<std::size_t>(1, (line + width - 1) / std::max<std::size_t>(width, 1));
  return rows;
}

std::string live_block::draw(const std::vector<std::string>& above, const std::vector<std::string>& block,
                             screen_size size) {
  std::string out;
  // A terminal that became narrower has broken the lines drawn before into more rows.
  const auto rows = std::min(rows_on(std::max<std::size_t>(size.width, 1)), size.height);
  if (rows > 1) out += fmt::format("\x1b[{}A", rows - 1);
  if (rows > 0) out += "\r\x1b[J";
  for (const auto& line : above)
    out += line + "\n";
  drawn_.clear();
  for (const auto& line : block) {
    if (!drawn_.empty()) out += "\n";
    out += line;
    drawn_.push_back(visible_columns(line));
  }
  return out;
}

} // namespace coppice::app
