#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

/// What the commands of `coppice-admin` print on standard output.
namespace coppice::app {

/// A line: the fact, or the text for people.
void print_fact(const nlohmann::json& fact, const std::string& text, bool json);

struct list_column {
  std::string heading;
  int spare = 0; ///< where there is no room for all, the column with the highest one goes first; 0: never
};

/// A list that is printed as objects of JSON, each at once, or as a table when it ends.
class listing {
public:
  listing(std::vector<list_column> columns, bool json);
  /// A row as a fact and, for the table, as cells.
  void add(const nlohmann::json& fact, std::vector<std::string> cells);
  std::size_t size() const { return size_; }
  /// Prints the table, as wide as the terminal, then `note` (if any) below it, and how much it was and when.
  void end(const std::string& what, const std::string& note = {}) const;
  /// The same, for rows that are `one` or `many`; `more` of them were left out.
  void end(const std::string& one, const std::string& many, bool more) const;

private:
  bool json_;
  std::size_t size_ = 0;
  std::vector<int> spare_;
  std::vector<std::vector<std::string>> rows_;
};

} // namespace coppice::app
