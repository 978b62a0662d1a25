#include "apps/common/display.hpp"

#include "nix/derivation.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace coppice::app {
namespace {

/// Lines of the block at most: half the terminal, but always as many as these.
constexpr std::size_t block_lines_least = 16;
/// On narrower terminals no waiting steps are shown between roots and what runs.
constexpr std::size_t deep_columns_min = 40;
/// Fewer columns of a name tell nothing.
constexpr std::size_t name_columns_min = 8;

/// " (1.2 s, 3.4 MB)", without what is 0.
std::string with_facts(std::int64_t ms, std::uint64_t bytes) {
  std::string facts = ms > 0 ? duration_text(std::chrono::milliseconds{ms}) : std::string{};
  if (bytes > 0) facts += (facts.empty() ? "" : ", ") + bytes_text(bytes);
  return facts.empty() ? facts : " (" + facts + ")";
}

std::string name_of(const nix::store_path& drv) {
  return std::string(nix::name_without_version(short_name(drv)));
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
                       with_facts(event.duration_ms, 0));
  case step_state::built:
    if (options_.quiet) return {};
    return fmt::format("{} {}{}", painted(colour::green, "built", on), name,
                       with_facts(event.duration_ms, event.bytes));
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
  auto lines = back();
  counts_ = news.counts;
  running_ = news.running;
  received_ = now;
  if (!began_) began_ = now;
  caught_up_ = news.events.size() < events_per_poll_max;
  parallel_ = std::max(parallel_, running_.size());
  if (news.lost && !lost_told_ && !options_.quiet) lines.emplace_back("(earlier events are no longer kept)");
  lost_told_ = lost_told_ || news.lost;
  if (news.waits_for != waits_for_ && !news.waits_for.empty() && !options_.quiet)
    lines.push_back(fmt::format("{} until there is room: {}", painted(colour::yellow, "waiting", options_.colours),
                                cleaned(news.waits_for)));
  waits_for_ = news.waits_for;
  for (const auto& event : news.events) {
    if (forest_) forest_->take(event);
    auto line = line_of(event);
    if (!line) continue;
    auto& told = last_told_[event.drv];
    if (told == *line) continue;
    told = *line;
    if (event.state == step_state::built) bytes_ += event.bytes;
    lines.push_back(std::move(*line));
  }
  return lines;
}

std::vector<std::string> display::names_to_ask(std::size_t names_max) {
  if (!options_.live || options_.quiet || !caught_up_) return {};
  std::vector<std::string> names;
  const auto ask = [&](std::string name) {
    if (usual_ms_.try_emplace(name, 0).second) names.push_back(std::move(name));
  };
  for (const auto& step : running_)
    if (names.size() < names_max) ask(name_of(step.drv));
  // Before anything is queued, what is there already is not known yet.
  if (forest_ && !lost_told_ && counts_.queued + counts_.building > 0)
    for (auto& name : forest_->names_to_ask(names_max - names.size()))
      ask(std::move(name));
  return names;
}

void display::learn(const std::vector<std::string>& names, const std::vector<std::int64_t>& usual_ms) {
  for (std::size_t i = 0; i < std::min(names.size(), usual_ms.size()); ++i) {
    if (usual_ms[i] <= 0) continue;
    usual_ms_[names[i]] = usual_ms[i];
    if (forest_) forest_->learn(names[i], std::chrono::milliseconds{usual_ms[i]});
  }
}

std::vector<std::string> display::away(const std::string& endpoint, time_point now) {
  const bool first = !away_;
  if (first) away_ = absence{endpoint, now};
  away_->endpoint = endpoint;
  if (!first || options_.live || options_.quiet) return {};
  return {fmt::format("waiting for {}", endpoint)};
}

std::vector<std::string> display::back() {
  const auto was = std::exchange(away_, std::nullopt);
  if (!was || options_.live || options_.quiet) return {};
  return {fmt::format("{} answers again", was->endpoint)};
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

std::vector<running_step> display::running_at(time_point now) const {
  auto running = running_;
  const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(now - received_).count();
  for (auto& step : running)
    step.elapsed_ms += std::max<std::int64_t>(since, 0);
  // Those that began first stay where they are while others come and go.
  std::stable_sort(running.begin(), running.end(), [](auto& a, auto& b) { return a.elapsed_ms > b.elapsed_ms; });
  return running;
}

std::vector<forest_row> display::rows(const std::vector<running_step>& running, std::size_t room, std::size_t width) {
  if (forest_ && !lost_told_)
    return forest_->rows(running, room, width < deep_columns_min ? forest_depth::roots : forest_depth::waiting);
  std::vector<forest_row> rows;
  const auto shown = running.size() <= room ? running.size() : room - std::min<std::size_t>(room, 1);
  for (std::size_t i = 0; i < shown; ++i)
    rows.push_back({"", forest_row::kind::running, running[i].drv, i});
  if (shown < running.size() && room > 0) rows.push_back({"", forest_row::kind::more, {}, running.size() - shown});
  return rows;
}

std::string display::running_line(const std::string& branch, const running_step& step, std::size_t width) const {
  const std::chrono::milliseconds elapsed{step.elapsed_ms};
  const auto sign = branch + "▸ ";
  const auto name = short_name(step.drv);
  const auto least = columns(sign) + std::min(columns(name), name_columns_min);
  auto time = " · " + (elapsed.count() < 10'000 ? fmt::format("{} s", elapsed.count() / 1000) : duration_text(elapsed));
  if (least + columns(time) > width) time.clear();
  if (const auto usual = usual_ms_.find(name_of(step.drv)); usual != usual_ms_.end() && usual->second > 0) {
    const auto more = " of ~" + rough_text(std::chrono::milliseconds{usual->second});
    if (!time.empty() && least + columns(time) + columns(more) <= width) time += more;
  }
  if (columns(sign) >= width) return fitted(sign + name, width);
  auto line = branch + painted(colour::yellow, "▸", options_.colours) + " " +
              fitted(name, width - columns(sign) - columns(time)) + time;
  std::string where;
  for (const auto& part : {cleaned(step.phase), cleaned(step.node.value)})
    if (!part.empty()) where += " · " + part;
  auto used = visible_columns(line);
  if (!where.empty() && used + 4 <= width) line += fitted(where, width - used);
  used = visible_columns(line);
  const auto last = cleaned(step.last_line);
  if (last.empty() || used + 8 > width) return line;
  return line + painted(colour::dim, fitted(" · " + last, width - used), options_.colours);
}

std::string display::row_line(const forest_row& row, const std::vector<running_step>& running,
                              std::size_t width) const {
  const auto name = row.what == forest_row::kind::more ? std::string{} : short_name(row.drv);
  switch (row.what) {
  case forest_row::kind::running: return running_line(row.branch, running[row.number], width);
  case forest_row::kind::waiting:
    return painted(colour::dim, fitted(fmt::format("{}◦ {} · waits for {}", row.branch, name, row.number), width),
                   options_.colours);
  case forest_row::kind::given_up:
    return painted(colour::dim, fitted(fmt::format("{}◦ {} · not attempted", row.branch, name), width),
                   options_.colours);
  case forest_row::kind::failed:
    return painted(colour::red, fitted(fmt::format("{}✗ {} · failed", row.branch, name), width), options_.colours);
  case forest_row::kind::more: break;
  }
  return fitted(fmt::format("  … and {} more", row.number), width);
}

std::string display::total_line(const std::vector<running_step>& running, time_point now, std::size_t width) {
  struct piece {
    std::string text;
    int urgency; // what is least urgent is left out first
  };
  std::vector<piece> pieces{{fmt::format("{}/{} built", counts_.built, counts_.total), 9}};
  const auto add = [&](int urgency, std::uint64_t count, std::string_view what) {
    if (count) pieces.push_back({fmt::format("{} {}", count, what), urgency});
  };
  add(7, counts_.building, "running");
  add(4, counts_.queued, "queued");
  add(3, counts_.planned, "waiting for inputs");
  add(6, counts_.failed, "failed");
  add(4, counts_.not_attempted, "not attempted");
  add(2, counts_.reused, "reused");
  if (bytes_ > 0) pieces.push_back({bytes_text(bytes_), 1});
  const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(now - began_.value_or(now));
  if (elapsed >= std::chrono::seconds{1}) pieces.push_back({duration_text(elapsed), 5});
  if (forest_ && !lost_told_ && caught_up_)
    if (const auto rest = forest_->rest(running, parallel_)) pieces.push_back({"~" + rough_text(*rest) + " left", 8});
  while (true) {
    std::string text;
    for (const auto& p : pieces)
      text += (text.empty() ? "" : " · ") + p.text;
    text = "[" + text + "]";
    if (columns(text) <= width || pieces.size() == 1)
      return painted(colour::bold, fitted(text, width), options_.colours);
    pieces.erase(
        std::min_element(pieces.begin(), pieces.end(), [](auto& a, auto& b) { return a.urgency < b.urgency; }));
  }
}

std::vector<std::string> display::block(time_point now, screen_size size) {
  if (!options_.live || options_.quiet || size.width < 2 || size.height < 2) return {};
  const auto width = size.width - 1; // a full line would make some terminals wrap
  const auto room = std::min(size.height - 1, std::max(size.height / 2, block_lines_least)) - 1;
  const auto running = running_at(now);
  std::vector<std::string> lines;
  for (const auto& row : rows(running, room, width))
    lines.push_back(row_line(row, running, width));
  if (away_) {
    const auto since = std::chrono::duration_cast<std::chrono::seconds>(now - away_->since);
    const auto text = fmt::format("waiting for {} ({} s)", away_->endpoint, since.count());
    lines.push_back(painted(colour::yellow, fitted(text, width), options_.colours));
  } else {
    lines.push_back(total_line(running, now, width));
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
