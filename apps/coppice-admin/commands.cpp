#include "apps/coppice-admin/commands.hpp"

#include "apps/common/display.hpp"
#include "apps/common/evaluate.hpp"
#include "apps/common/pages.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"
#include "apps/coppice-admin/output.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>
#include <tuple>

namespace coppice::app {
namespace {

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

/// Whose actor that is: of the node that the path begins with, if there is one; else (empty) of the one that is asked.
std::string node_of(farm& f, const std::string& path) {
  const auto first = path.substr(1, path.find('/', 1) - 1);
  auto nodes = f.ask_once<node_statuses>("inspector", "nodes", get_nodes{}, farm::call_timeout);
  if (!nodes) return {}; // the actors of the node that is asked can be killed without a hub, too
  for (auto& row : nodes->rows)
    if (row.what.node.value == first) return first;
  return {};
}

} // namespace

expected<void> attempts_command(farm& f, const attempts_options& options, bool json) {
  ledger::read_attempts query;
  if (!options.drv.empty()) {
    auto root = parse_root(options.drv);
    if (!root) return tl::unexpected(root.error());
    query.drv = root->drv;
  }
  listing list({{"STARTED", 4},
                {"TOOK", 2},
                {"CPU", 6},
                {"MEMORY", 5},
                {"RESULT"},
                {"NODE", 3},
                {"TOKEN", 7},
                {"DERIVATION"},
                {"INHASH", 8}},
               json);
  auto more = each_row<ledger::attempt_row>(
      options.count, page_rows_max,
      [&](auto* last, std::uint32_t limit) {
        query.limit = limit;
        if (last)
          std::tie(query.before_ms, query.before_key, query.before_token) =
              std::tie(last->started_ms, last->key, last->token);
        return rows_of(f.ask<ledger::attempt_rows>("observatory", "attempts", query));
      },
      [&](const ledger::attempt_row& row) {
        list.add(attempt_json(row), {utc_text(row.started_ms), ended_text(row), cpu_text(row.usage),
                                     memory_text(row.usage), attempt_result(row), cleaned(row.node.value),
                                     std::to_string(row.token.value), short_name(row.drv), row.key.to_string()});
      });
  if (!more) return tl::unexpected(more.error());
  list.end("attempt", "attempts", *more);
  return {};
}

expected<void> locks_command(farm& f, std::size_t count, bool json) {
  ledger::held_locks query;
  listing list({{"PHASE"}, {"TOKEN", 2}, {"NODE", 1}, {"DERIVATION"}, {"INHASH", 3}}, json);
  auto more = each_row<ledger::lock_state>(
      count, page_rows_max,
      [&](auto* last, std::uint32_t limit) {
        query.limit = limit;
        if (last) std::tie(query.after_session, query.after) = std::tie(last->holder.session, last->key);
        return rows_of(f.ask<ledger::lock_states>("observatory", "locks", query));
      },
      [&](const ledger::lock_state& row) {
        list.add(lock_json(row), {std::string(ledger::to_string(row.phase)), std::to_string(row.token.value),
                                  cleaned(row.node.value), short_name(row.drv), row.key.to_string()});
      });
  if (!more) return tl::unexpected(more.error());
  list.end("lock", "locks", *more);
  return {};
}

expected<void> failures_command(farm& f, std::size_t count, bool json) {
  ledger::read_failures query;
  listing list({{"LAST", 2}, {"CLASS"}, {"COUNT", 3}, {"REMEMBERED", 4}, {"DERIVATION"}, {"REASON", 1}}, json);
  auto more = each_row<ledger::failure_row>(
      count, page_rows_max,
      [&](auto* last, std::uint32_t limit) {
        query.limit = limit;
        if (last) std::tie(query.before_ms, query.after) = std::tie(last->last_ms, last->key);
        return rows_of(f.ask<ledger::failure_rows>("observatory", "failures", query));
      },
      [&](const ledger::failure_row& row) {
        list.add(failure_json(row), {row.last_ms > 0 ? utc_text(row.last_ms) : "", std::string(to_string(row.failure)),
                                     std::to_string(row.count), row.remembered ? "yes" : "", short_name(row.drv),
                                     cleaned(row.reason.substr(0, row.reason.find('\n')))});
      });
  if (!more) return tl::unexpected(more.error());
  list.end("failure", "failures", *more);
  return {};
}

expected<void> forget_failure_command(farm& f, const std::string& what, bool json) {
  ledger::forget_failures forget;
  if (what != "all") {
    auto root = parse_root(what);
    if (!root) return tl::unexpected(root.error());
    forget.drv = root->drv;
    auto known = f.ask<ledger::failure_rows>("observatory", "failures", ledger::read_failures{forget.drv, 1});
    if (!known) return tl::unexpected(known.error());
    if (known->rows.empty()) return fail(ec::not_found, fmt::format("no failure of {} is known; see 'failures'", what));
  }
  auto done = f.ask<ledger::done>("observatory", "forget", forget);
  if (!done)
    return fail(done.error().code, fmt::format("cannot forget the failures of {}: {}", what, done.error().what));
  if (json)
    std::cout << json_text({{"forgotten", what}}) << std::endl;
  else
    std::cout << fmt::format("forgotten: {}", what) << std::endl;
  return {};
}

expected<void> kill_command(farm& f, const kill_actor& what, bool json) {
  if (auto path = check(what); !path)
    return fail(ec::invalid, fmt::format("'{}' is no actor's path, such as /lock/ledger; see 'coppice-admin tree'", what.path));
  const auto target = target_on(node_of(f, what.path), "observatory");
  auto tree = f.ask<actor_tree>(target, "tree", get_tree{});
  if (!tree) return fail(tree.error().code, fmt::format("cannot kill {}: {}", what.path, tree.error().what));
  auto order = what;
  for (auto& actor : tree->actors)
    if (actor.path == what.path || actor.path == "/" + tree->node.value + what.path) order.restarts = actor.restarts;
  auto done = f.ask<ledger::done>(target, "kill", order);
  if (!done) return fail(done.error().code, fmt::format("cannot kill {}: {}", what.path, done.error().what));
  if (json)
    std::cout << json_text({{"path", what.path}, {"crash", what.crash}}) << std::endl;
  else
    std::cout << fmt::format("{} {}", what.crash ? "crashed" : "killed", what.path) << std::endl;
  return {};
}

} // namespace coppice::app
