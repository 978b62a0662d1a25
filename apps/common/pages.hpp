#pragma once

#include "messages/check.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <set>

/// Lists that are too long for one answer: shown page by page as they come.
namespace coppice::app {

/// Rows asked for at once.
inline constexpr std::size_t page_rows_max = rows_max;
/// The same of requests, whose rows may be large: they have all their roots and failures.
inline constexpr std::size_t request_page_rows_max = 100;

/// The rows of an answer.
template <class Answer>
auto rows_of(expected<Answer> answer) -> expected<decltype(answer->rows)> {
  if (!answer) return tl::unexpected(answer.error());
  return std::move(answer->rows);
}

/// Tells `each` the first `count` rows of a list. `ask(last, limit)` gives at most `limit` of those behind the row
/// `last`, or (null) the first ones. True if there are more than that.
template <class Row, class Ask, class Each>
expected<bool> each_row(std::size_t count, std::size_t page_max, Ask ask, Each each) {
  expected<std::vector<Row>> page;
  for (const Row* last = nullptr;; last = &page->back()) {
    const auto limit = std::min(count, page_max - 1) + 1; // one more tells whether there are more
    auto next = ask(last, static_cast<std::uint32_t>(limit));
    if (!next) return tl::unexpected(next.error());
    page = std::move(next);
    for (const auto& row : *page) {
      if (count-- == 0) return true;
      each(row);
    }
    std::cout.flush();
    if (!std::cout) return fail(ec::io, "cannot write the list: standard output is closed");
    if (page->size() < limit) return false;
  }
}

/// Tells `each` all open requests, oldest first, and then the newest `count` others. Asks `f`, which is a farm or a
/// client.
template <class Farm, class Each>
expected<bool> each_request(Farm& f, std::size_t count, Each each) {
  std::set<request_id> seen; // one that ends meanwhile comes again
  auto ask = [&](const get_requests& q) { return rows_of(f.template ask<request_summaries>("gateway", "status", q)); };
  auto once = [&](const request_summary& row) {
    if (seen.insert(row.id).second) each(row);
  };
  auto open = each_row<request_summary>(
      SIZE_MAX, request_page_rows_max,
      [&](auto* last, std::uint32_t limit) {
        return ask({{}, 0, limit, last ? last->number : 0, 0});
      },
      once);
  if (!open || count == 0) return open;
  return each_row<request_summary>(
      count, request_page_rows_max,
      [&](auto* last, std::uint32_t limit) {
        return ask({{}, limit, 0, 0, last ? last->number : 0});
      },
      once);
}

} // namespace coppice::app
