#pragma once

#include <string>
#include <vector>

/// What the commands of `coppice-admin` print on standard output.
namespace coppice::app {

/// Rows of cells, the first as heading, as wide as the terminal.
void print_table(const std::vector<std::vector<std::string>>& rows);

/// On standard error, and only to a terminal: how much it was, and when it was so.
void print_age(const std::string& what);

} // namespace coppice::app
