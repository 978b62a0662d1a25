#include "apps/common/pages.hpp"

#include <catch2/catch.hpp>

#include <numeric>

using namespace coppice;
using namespace coppice::app;

namespace {

/// The numbers 1 to `total`, asked for in pages of at most 10; what was shown, and what limits were asked for.
struct reader {
  explicit reader(int total) : list(static_cast<std::size_t>(total)) { std::iota(list.begin(), list.end(), 1); }
  expected<bool> read(std::size_t count) {
    return each_row<int>(
        count, 10,
        [&](const int* last, std::uint32_t limit) -> expected<std::vector<int>> {
          limits.push_back(limit);
          if (limits.size() > broken_at) return fail(ec::unavailable, "gone");
          const auto from = std::upper_bound(list.begin(), list.end(), last ? *last : 0);
          return std::vector<int>(from, from + std::min<std::ptrdiff_t>(limit, list.end() - from));
        },
        [&](int row) { shown.push_back(row); });
  }
  std::vector<int> list, shown;
  std::vector<std::uint32_t> limits;
  std::size_t broken_at = SIZE_MAX;
};

} // namespace

TEST_CASE("a list that is longer than a page is shown whole, in order, or as many rows of it as asked for") {
  const auto total = GENERATE(0, 1, 9, 10, 11, 20, 35);
  const auto count = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{9}, std::size_t{10}, std::size_t{11},
                              std::size_t{30}, std::size_t{35}, std::size_t{36}, SIZE_MAX);
  CAPTURE(total, count);
  reader r(total);
  auto more = r.read(count);
  REQUIRE(more);
  const auto fits = std::min(count, r.list.size());
  CHECK(r.shown == std::vector<int>(r.list.begin(), r.list.begin() + static_cast<std::ptrdiff_t>(fits)));
  CHECK(*more == (count < r.list.size()));
  for (auto limit : r.limits)
    CHECK((limit >= 1 && limit <= 10));
}

TEST_CASE("a page that cannot be had ends the list with the reason") {
  reader r(30);
  r.broken_at = 2;
  auto more = r.read(SIZE_MAX);
  REQUIRE_FALSE(more);
  CHECK(more.error().what == "gone");
  CHECK(r.shown.size() == 20);
}
