#include "apps/coppice-admin/output.hpp"

#include "apps/common/console.hpp"
#include "apps/common/text.hpp"
#include "runtime/clock.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <iostream>

namespace coppice::app {

void print_table(const std::vector<std::vector<std::string>>& rows) {
  for (const auto& line : table(rows, output_size().width))
    std::cout << line << '\n';
}

void print_age(const std::string& what) {
  std::cout.flush();
  if (::isatty(STDERR_FILENO) == 0) return;
  const auto now = rt::real_clock{}.wall_now().time_since_epoch();
  std::cerr << fmt::format("({}, as of {})", what,
                           utc_text(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()))
            << std::endl;
}

} // namespace coppice::app
