#include "apps/coppice-admin/commands.hpp"

#include "apps/common/display.hpp"
#include "apps/common/evaluate.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"
#include "apps/coppice-admin/output.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>

namespace coppice::app {
namespace {

/// Attempts asked for at once.
constexpr std::size_t page_rows_max = 1000;

std::string ended_text(const ledger::attempt_row& attempt) {
  return attempt.ended_ms ? duration_text(std::chrono::milliseconds{*attempt.ended_ms - attempt.started_ms}) : "";
}

std::string cpu_text(const build_usage& usage) {
  const std::chrono::milliseconds cpu{usage.cpu_user_ms + usage.cpu_system_ms};
  return cpu.count() > 0 ? duration_text(cpu) : "";
}

std::string memory_text(const build_usage& usage) {
  return usage.memory_peak_bytes > 0 ? bytes_text(static_cast<std::uint64_t>(usage.memory_peak_bytes)) : "";
}

} // namespace

expected<void> attempts_command(farm& f, const attempts_options& options, bool json) {
  ledger::read_attempts query;
  if (!options.drv.empty()) {
    auto root = parse_root(options.drv);
    if (!root) return tl::unexpected(root.error());
    query.drv = root->drv;
  }
  std::vector<std::vector<std::string>> rows{{"STARTED", "TOOK", "CPU", "MEMORY", "RESULT", "NODE", "TOKEN", "DERIVATION", "INHASH"}};
  for (std::size_t left = options.count; left > 0;) {
    query.limit = static_cast<std::uint32_t>(std::min(left, page_rows_max));
    auto page = f.ask<ledger::attempt_rows>("observatory", "attempts", query);
    if (!page) return tl::unexpected(page.error());
    for (const auto& row : page->rows) {
      if (json) std::cout << json_text(attempt_json(row)) << '\n';
      rows.push_back({utc_text(row.started_ms), ended_text(row), cpu_text(row.usage), memory_text(row.usage),
                      attempt_result(row), cleaned(row.node.value),
                      std::to_string(row.token.value), short_name(row.drv), row.key.to_string()});
    }
    if (page->rows.size() < query.limit) break;
    left -= page->rows.size();
    query.before_ms = page->rows.back().started_ms;
  }
  if (!json) print_table(rows);
  print_age(counted(rows.size() - 1, "attempt", "attempts"));
  return {};
}

expected<void> locks_command(farm& f, bool json) {
  auto locks = f.ask<ledger::lock_states>("observatory", "locks", ledger::held_locks{});
  if (!locks) return tl::unexpected(locks.error());
  std::vector<std::vector<std::string>> rows{{"PHASE", "TOKEN", "NODE", "DERIVATION", "INHASH"}};
  for (const auto& row : locks->rows) {
    if (json) std::cout << json_text(lock_json(row)) << '\n';
    rows.push_back({std::string(ledger::to_string(row.phase)), std::to_string(row.token.value), cleaned(row.node.value),
                    short_name(row.drv), row.key.to_string()});
  }
  if (!json) print_table(rows);
  print_age(counted(rows.size() - 1, "lock", "locks"));
  return {};
}

expected<void> failures_command(farm& f, std::size_t count, bool json) {
  ledger::read_failures query;
  query.limit = static_cast<std::uint32_t>(std::min(count, page_rows_max));
  auto failures = f.ask<ledger::failure_rows>("observatory", "failures", query);
  if (!failures) return tl::unexpected(failures.error());
  std::vector<std::vector<std::string>> rows{{"LAST", "CLASS", "COUNT", "REMEMBERED", "DERIVATION", "REASON"}};
  for (const auto& row : failures->rows) {
    if (json) std::cout << json_text(failure_json(row)) << '\n';
    rows.push_back({row.last_ms > 0 ? utc_text(row.last_ms) : "", std::string(to_string(row.failure)),
                    std::to_string(row.count), row.remembered ? "yes" : "", short_name(row.drv),
                    cleaned(row.reason.substr(0, row.reason.find('\n')))});
  }
  if (!json) print_table(rows);
  print_age(counted(rows.size() - 1, "failure", "failures"));
  return {};
}

expected<void> forget_failure_command(farm& f, const std::string& what, bool json) {
  ledger::forget_failures forget;
  if (what != "all") {
    auto root = parse_root(what);
    if (!root) return tl::unexpected(root.error());
    forget.drv = root->drv;
  }
  auto done = f.ask<ledger::done>("observatory", "forget", forget);
  if (!done) return fail(done.error().code, fmt::format("cannot forget the failures of {}: {}", what, done.error().what));
  if (json)
    std::cout << json_text({{"forgotten", what}}) << std::endl;
  else
    std::cout << fmt::format("forgotten: {}", what) << std::endl;
  return {};
}

expected<void> kill_command(farm& f, const kill_actor& what, bool json) {
  auto done = f.ask<ledger::done>("observatory", "kill", what);
  if (!done) return fail(done.error().code, fmt::format("cannot kill {}: {}", what.path, done.error().what));
  if (json)
    std::cout << json_text({{"path", what.path}, {"crash", what.crash}}) << std::endl;
  else
    std::cout << fmt::format("{} {}", what.crash ? "crashed" : "killed", what.path) << std::endl;
  return {};
}

} // namespace coppice::app
