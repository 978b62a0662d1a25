#include "apps/common/text.hpp"

#include "apps/common/width.hpp"
#include "store/percent.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <array>
#include <ctime>
#include <utility>

namespace coppice::app {
namespace {

std::size_t columns_of(const character& c) {
  return c.valid ? width_of(c.code) : 1;
}

/// The last column of a table may be cut, but not to less.
constexpr std::size_t last_column_min = 20;

/// Of each column of a table.
std::vector<std::size_t> widths_of(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], columns(row[i]));
  }
  return widths;
}

} // namespace

std::size_t columns(std::string_view utf8) {
  std::size_t sum = 0;
  while (!utf8.empty()) {
    const auto c = first_of(utf8);
    sum += columns_of(c);
    utf8.remove_prefix(c.bytes);
  }
  return sum;
}

void line_cleaner::take(std::string& out, char32_t code, std::string_view character) {
  if (returned_ && code != '\n') out += '\n';
  returned_ = code == '\r';
  // No sequence goes beyond its line: what began one by chance does not hide the rest of the log.
  if (code == '\n' || code == '\r') state_ = in::text;
  switch (state_) {
  case in::text:
    if (code == 0x1b)
      state_ = in::escape;
    else if (code == '\n' || code == '\t' || !is_control(code))
      out += character;
    return;
  case in::escape:
    state_ = code == '[' ? in::csi : code == ']' || code == 'P' || code == '^' || code == '_' ? in::string : in::text;
    return;
  case in::csi:
    if (code >= 0x40 && code <= 0x7e) state_ = in::text;
    return;
  case in::string:
    if (code == 0x07) state_ = in::text;
    if (code == 0x1b) state_ = in::escape; // of its end, ESC and a backslash
    return;
  }
}

std::string line_cleaner::feed(std::string_view bytes) {
  const auto text = std::exchange(rest_, {}) + std::string(bytes);
  std::string out;
  for (std::string_view left = text; !left.empty();) {
    const auto c = first_of(left);
    const auto lead = static_cast<unsigned char>(left.front());
    const std::size_t wanted = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 1;
    if (!c.valid && left.size() < wanted) { // the end of it may come with the next piece
      rest_ = left;
      break;
    }
    take(out, c.valid ? c.code : U'\ufffd', c.valid ? left.substr(0, c.bytes) : "\ufffd");
    left.remove_prefix(c.bytes);
  }
  return out;
}

std::string fitted(std::string_view utf8, std::size_t width) {
  std::size_t used = 0, at = 0, cut = 0; // cut: bytes that leave a column for the ellipsis
  while (at < utf8.size()) {
    const auto c = first_of(utf8.substr(at));
    used += columns_of(c);
    if (used > width) return width == 0 ? std::string{} : std::string(utf8.substr(0, cut)) + "…";
    at += c.bytes;
    if (used < width) cut = at;
  }
  return std::string(utf8);
}

std::string padded(std::string_view utf8, std::size_t width) {
  auto text = fitted(utf8, width);
  text.append(width - columns(text), ' ');
  return text;
}

std::string duration_text(std::chrono::milliseconds d) {
  const auto ms = std::max<std::int64_t>(0, d.count());
  const auto s = ms / 1000;
  if (ms < 10'000) return fmt::format("{}.{} s", s, ms % 1000 / 100);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} m {:02} s", s / 60, s % 60);
  if (s < 86'400) return fmt::format("{} h {:02} m", s / 3600, s / 60 % 60);
  return fmt::format("{} d {:02} h", s / 86'400, s / 3600 % 24);
}

std::string rough_text(std::chrono::milliseconds d) {
  const auto s = std::max<std::int64_t>(1, (d.count() + 999) / 1000);
  if (s <= 10) return fmt::format("{} s", s);
  if (s < 90) return fmt::format("{} s", (s + 4) / 5 * 5);
  if (s < 3600) return fmt::format("{} m", (s + 30) / 60);
  if (s < 36'000) return fmt::format("{} h {:02} m", s / 3600, s / 60 % 60 / 10 * 10);
  return duration_text(d);
}

std::string bytes_text(std::uint64_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  constexpr std::array units{"kB", "MB", "GB", "TB", "PB", "EB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (value /= 1000; value >= 999.95 && unit + 1 < units.size(); ++unit)
    value /= 1000;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string utc_text(std::int64_t wall_ms) {
  const std::time_t seconds = wall_ms / 1000;
  std::tm parts{};
  if (!gmtime_r(&seconds, &parts)) return fmt::format("{} ms", wall_ms);
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", parts);
}

std::string counted(std::uint64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::vector<std::string> last_lines(std::string_view text, std::size_t lines_max) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  std::vector<std::string> lines;
  while (!text.empty() && lines.size() < lines_max) {
    const auto end = text.rfind('\n');
    const auto start = end == text.npos ? 0 : end + 1;
    lines.emplace_back(text.substr(start));
    text = text.substr(0, end == text.npos ? 0 : end);
  }
  std::reverse(lines.begin(), lines.end());
  return lines;
}

std::string percent_encoded(std::string_view text) {
  return store::percent_encoded(text, "/");
}

std::string painted(colour c, std::string_view text, bool on) {
  constexpr std::array codes{"0", "31", "32", "33", "34", "1", "2"};
  if (!on || c == colour::plain || text.empty()) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", codes[static_cast<std::size_t>(c)], text);
}

std::vector<std::vector<std::string>> narrowed(std::vector<std::vector<std::string>> rows, std::vector<int> spare,
                                               std::size_t width) {
  auto widths = widths_of(rows);
  const auto too_wide = [&] {
    return std::accumulate(widths.begin(), widths.end() - 1, 2 * (widths.size() - 1)) +
               std::min(widths.back(), last_column_min) >
           width;
  };
  while (width > 0 && widths.size() > 1 && too_wide()) {
    const auto most = std::max_element(spare.begin(), spare.end()) - spare.begin();
    if (spare.at(static_cast<std::size_t>(most)) == 0) break;
    spare.erase(spare.begin() + most);
    widths.erase(widths.begin() + most);
    for (auto& row : rows)
      row.erase(row.begin() + most);
  }
  return rows;
}

std::vector<std::string> table(const std::vector<std::vector<std::string>>& rows, std::size_t width) {
  const auto widths = widths_of(rows);
  std::vector<std::string> lines;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i) line += "  ";
      line += i + 1 < row.size() ? padded(row[i], widths[i]) : row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    lines.push_back(width ? fitted(line, width) : line);
  }
  return lines;
}

} // namespace coppice::app
