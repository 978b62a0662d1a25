#include "bench/support/report.hpp"

#include <nlohmann/json.hpp>

#include <cstdio>

namespace coppice::bench {

namespace {

bool met(const aim& a, double ratio) {
  return a.at_least ? ratio >= a.bound : ratio <= a.bound;
}

void print_json(const row& r, std::optional<double> ratio) {
  nlohmann::ordered_json line{{"name", r.name},   {"value", r.value}, {"unit", r.unit},
                              {"rival", nullptr}, {"ratio", nullptr}, {"aim", nullptr}};
  if (r.rival) line["rival"] = *r.rival;
  if (ratio) line["ratio"] = *ratio;
  if (r.aim) line["aim"] = {{"bound", r.aim->bound}, {"at_least", r.aim->at_least}};
  std::puts(line.dump().c_str());
}

void print_line(const row& r, std::optional<double> ratio) {
  std::printf("%-28s %12.3f  %-6s", r.name.c_str(), r.value, r.unit.c_str());
  if (ratio) std::printf(" %12.3f %9.3f", *r.rival, *ratio);
  if (ratio && r.aim)
    std::printf("  %s %.2f %s", r.aim->at_least ? ">=" : "<=", r.aim->bound, met(*r.aim, *ratio) ? "met" : "missed");
  std::putchar('\n');
}

} // namespace

void print(const std::vector<row>& rows, bool json) {
  if (!json) std::printf("%-28s %12s  %-6s %12s %9s  %s\n", "name", "value", "unit", "rival", "ratio", "aim");
  for (const auto& r : rows) {
    std::optional<double> ratio;
    if (r.rival && *r.rival != 0) ratio = r.value / *r.rival;
    json ? print_json(r, ratio) : print_line(r, ratio);
  }
}

} // namespace coppice::bench
