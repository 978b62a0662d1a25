#pragma once

#include <cstddef>

namespace coppice::app {

/// Columns that a character takes on a terminal: 2 for the wide ones of East Asia and emoji, 0 for combining and
/// invisible ones, else 1; control characters are not looked at.
std::size_t width_of(char32_t code);

} // namespace coppice::app
