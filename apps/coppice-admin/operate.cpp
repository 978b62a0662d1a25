#include "apps/common/admin_report.hpp"
#include "apps/common/display.hpp"
#include "apps/common/evaluate.hpp"
#include "apps/common/pages.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"
#include "apps/coppice-admin/commands.hpp"
#include "apps/coppice-admin/output.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>

namespace coppice::app {
namespace {

/// Open requests whose progress is asked for, too.
constexpr std::size_t followed_max = 20;

} // namespace

expected<void> queue_command(farm& f, const queue_options& options, bool json) {
  listing list(
      {{"POS"}, {"SLOT", 5}, {"PRIO", 3}, {"PATH", 4}, {"WAITING", 2}, {"REQUEST", 6}, {"DERIVATION"}, {"WHY", 1}},
      json);
  job_queue page;
  get_queue query{options.offset, 0};
  auto more = each_row<queued_job>(
      options.count, page_rows_max,
      [&](auto* last, std::uint32_t limit) -> expected<std::vector<queued_job>> {
        query.limit = limit;
        if (last) query = {0, limit, queue_place{last->priority, last->critical_path, last->age, last->key}};
        auto answer = f.ask<job_queue>("inspector", "queue", query);
        if (!answer) return tl::unexpected(answer.error());
        page = std::move(*answer);
        return std::move(page.rows);
      },
      [&](const queued_job& job) { list.add(queued_job_json(job), queued_job_cells(job)); });
  if (!more) return tl::unexpected(more.error());
  list.end(fmt::format("{} waiting, {} being assigned; what a request has not placed yet is not here, see 'coppice "
                       "explain'",
                       counted(page.total, "job", "jobs"), page.assigned),
           *more ? fmt::format("… {} of {}; --offset {} goes on", list.size(), page.total, options.offset + list.size())
                 : std::string());
  return {};
}

expected<void> requests_command(farm& f, std::size_t count, bool json) {
  listing list({{"ID"},
                {"STATE", 2},
                {"CLIENT", 5},
                {"SUBMITTED", 7},
                {"PRIO", 6},
                {"DONE", 1},
                {"BUILDING", 3},
                {"QUEUED", 4},
                {"BUILDS"}},
               json);
  std::size_t open = 0;
  auto more = each_request(f, count, [&](const request_summary& row) {
    auto fact = summary_json(row);
    step_counts counts;
    bool counted_here = false;
    if (row.state == request_state::open && ++open <= followed_max)
      // ignored: one that says nothing now is listed without its counts
      if (auto progress = f.ask<request_progress>("gateway", "poll", poll_request{row.id, 0, 0})) {
        counts = progress->counts;
        counted_here = true;
        fact["steps"] = progress_json(*progress)["steps"];
      }
    auto number = [&](std::uint64_t n) { return counted_here ? std::to_string(n) : std::string(); };
    auto builds = row.roots.empty() ? std::string() : short_name(row.roots.front());
    if (row.roots.size() > 1) builds += fmt::format(" and {} more", row.roots.size() - 1);
    list.add(fact, {row.id.to_string(), std::string(to_string(row.state)), cleaned(row.client),
                    utc_text(row.submitted_ms), std::to_string(row.priority),
                    counted_here ? fmt::format("{}/{}", counts.built + counts.reused, counts.total) : "",
                    number(counts.building), number(counts.queued + counts.planned), builds});
  });
  if (!more) return tl::unexpected(more.error());
  list.end(fmt::format("{}, {} open", counted(list.size(), "request", "requests"), open));
  return {};
}

expected<void> nodes_command(farm& f, bool json) {
  auto nodes = f.ask<node_statuses>("inspector", "nodes", get_nodes{});
  if (!nodes) return tl::unexpected(nodes.error());
  listing list({{"NODE"},
                {"STATE"},
                {"FREE", 1},
                {"FREE IO", 4},
                {"BUSY", 2},
                {"CORES", 2},
                {"MEMORY", 3},
                {"DISK", 3},
                {"SINCE", 5},
                {"HEARD", 6},
                {"VERSION", 9},
                {"PRESSURE", 8},
                {"SYSTEMS", 7},
                {"FEATURES", 10},
                {"WHY"}},
               json);
  for (const auto& node : nodes->rows)
    list.add(node_json(node), node_cells(node));
  list.end("machine", "machines", false);
  return {};
}

expected<void> drain_command(farm& f, const drain_node& what, bool json) {
  auto order = what;
  if (order.node.empty()) {
    auto asked = f.node();
    if (!asked) return tl::unexpected(asked.error());
    order.node = *asked;
  }
  auto done = f.ask<ledger::done>("inspector", "drain", order);
  if (!done)
    return fail(done.error().code,
                fmt::format("cannot {} {}: {}", order.drained ? "drain" : "undrain", order.node.value, done.error().what));
  const auto& name = order.node.value;
  print_fact({{"node", name}, {"drained", order.drained}, {"why", order.why}},
        order.drained ? fmt::format("drained: {}: what runs is finished and uploaded, nothing more is started", name)
                      : "undrained: " + name,
        json);
  return {};
}

expected<void> gone_command(farm& f, const std::string& what, bool json) {
  auto path = parse_store_path(what);
  if (!path) return tl::unexpected(path.error());
  auto gone = f.ask<path_info>("inspector", "gone", mark_gone{*path});
  if (!gone) return fail(gone.error().code, fmt::format("cannot forget {}: {}", what, gone.error().what));
  const auto by = gone->deriver ? gone->deriver->to_string() : std::string();
  print_fact({{"gone", path->to_string()}, {"deriver", by}, {"blob", gone->blob.to_string()}},
        fmt::format("gone: {}\n{}", path->to_string(),
                    by.empty() ? "whoever needs it must submit it again"
                               : fmt::format("it is built again by {} when somebody needs it", by)),
        json);
  return {};
}

} // namespace coppice::app
