#pragma once

#include "messages/utf8.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Text as terminals show it. Pure.
namespace coppice::app {

/// Columns that `utf8` takes on a terminal: 2 for wide characters, 0 for combining ones, 1 for a byte that is no UTF-8.
std::size_t columns(std::string_view utf8);

/// cleaned() for a stream of lines, in pieces that may end anywhere: newlines and tabs stay, a carriage return alone
/// becomes a newline. Holds a few bytes.
class line_cleaner {
public:
  std::string feed(std::string_view bytes);

private:
  enum class in { text, escape, csi, string };
  void take(std::string& out, char32_t code, std::string_view character);
  in state_ = in::text;
  bool returned_ = false; // a carriage return was the last character
  std::string rest_;      // the beginning of a character
};

/// `utf8`, if it fits into `width` columns, else its beginning and "…", together at most `width` columns.
std::string fitted(std::string_view utf8, std::size_t width);

/// fitted() and then filled with spaces up to exactly `width` columns.
std::string padded(std::string_view utf8, std::size_t width);

/// How long something took or takes: "0.3 s", "12 s", "3 m 05 s", "2 h 03 m", "4 d 02 h".
std::string duration_text(std::chrono::milliseconds d);

/// Roughly, for what is guessed: "5 s", "40 s", "3 m", "2 h 10 m", "4 d 02 h".
std::string rough_text(std::chrono::milliseconds d);

/// "312 B", "1.4 MB", "2.0 GB"; decimal units.
std::string bytes_text(std::uint64_t bytes);

/// Wall clock milliseconds as UTC, "2024-05-01T12:30:05Z".
std::string utc_text(std::int64_t wall_ms);

/// One step, 12 steps.
std::string counted(std::uint64_t count, std::string_view one, std::string_view many);

/// The last `lines_max` lines of `text`, without a final newline.
std::vector<std::string> last_lines(std::string_view text, std::size_t lines_max);

/// `text` fit for the path or a query value of a URL; '/' stays.
std::string percent_encoded(std::string_view text);

/// The colours that are used; `plain` is none.
enum class colour { plain, red, green, yellow, blue, bold, dim };

/// `text` in that colour if `on`.
std::string painted(colour c, std::string_view text, bool on);

/// The rows without the columns that can be spared most, as many of them as must go for the others to be
/// `width` columns (0: no limit) wide at most, the last one cut. `spare` says how well each column can be spared; 0: not at
/// all.
std::vector<std::vector<std::string>> narrowed(std::vector<std::vector<std::string>> rows, std::vector<int> spare,
                                               std::size_t width);

/// Rows of cells as aligned columns, the first row as heading; the last column is cut so that lines fit into `width`
/// columns (0: no limit).
std::vector<std::string> table(const std::vector<std::vector<std::string>>& rows, std::size_t width);

} // namespace coppice::app
