#include "apps/coppice-admin/output.hpp"

#include "apps/common/console.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"
#include "runtime/clock.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <iostream>

namespace coppice::app {
namespace {

/// On standard error, so that what reads standard output sees rows alone.
void print_age(const std::string& what) {
  const auto now = rt::real_clock{}.wall_now().time_since_epoch();
  const auto at = utc_text(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  const auto age = fmt::format("(as of {}: {})", at, what);
  const auto width = ::isatty(STDERR_FILENO) != 0 ? output_size().width : 0;
  std::cerr << (width ? fitted(age, width) : age) << std::endl;
}

} // namespace

void print_fact(const nlohmann::json& fact, const std::string& text, bool json) {
  std::cout << (json ? json_text(fact) : text) << std::endl;
}

listing::listing(std::vector<list_column> columns, bool json) : json_(json), rows_(1) {
  for (auto& column : columns) {
    rows_.front().push_back(std::move(column.heading));
    spare_.push_back(column.spare);
  }
}

void listing::add(const nlohmann::json& fact, std::vector<std::string> cells) {
  ++size_;
  if (json_)
    std::cout << json_text(fact) << '\n';
  else
    rows_.push_back(std::move(cells));
}

void listing::end(const std::string& what, const std::string& note) const {
  const auto width = output_size().width;
  if (!json_) {
    for (const auto& line : table(narrowed(rows_, spare_, width), width))
      std::cout << line << '\n';
    if (!note.empty()) std::cout << (width ? fitted(note, width) : note) << '\n';
  }
  std::cout.flush();
  if (!json_ || ::isatty(STDERR_FILENO) != 0) print_age(what);
}

void listing::end(const std::string& one, const std::string& many, bool more) const {
  const auto here = counted(size_, one, many);
  end(more ? here + " and more" : here, more ? fmt::format("… {} and more; -n says how many", size_) : std::string());
}

} // namespace coppice::app
