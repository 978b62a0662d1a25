#include "apps/common/admin_report.hpp"
#include "apps/common/display.hpp"
#include "apps/common/evaluate.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"
#include "apps/coppice-admin/commands.hpp"
#include "apps/coppice-admin/output.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>

namespace coppice::app {
namespace {

constexpr std::size_t page_rows_max = 1000;
/// Open requests whose progress is asked for, too.
constexpr std::size_t followed_max = 20;

void print(const nlohmann::json& fact, const std::string& text, bool json) {
  std::cout << (json ? json_text(fact) : text) << std::endl;
}

/// Those that are kept of this derivation, or all.
expected<std::vector<partial_output>> find_partials(farm& f, const std::string& what) {
  auto found = f.ask<partial_outputs>("inspector", "partials", get_partials{});
  if (!found) return tl::unexpected(found.error());
  if (what == "all") return std::move(found->rows);
  auto root = parse_root(what);
  if (!root) return tl::unexpected(root.error());
  std::erase_if(found->rows, [&](auto& row) { return row.drv != root->drv; });
  if (found->rows.empty())
    return fail(ec::not_found, fmt::format("no outputs of {} wait to be uploaded; see 'partial list'", what));
  return std::move(found->rows);
}

/// Does it to each of them; the first error ends it.
template <class Make>
expected<void> order_partials(farm& f, const std::string& what, const std::string& method, const std::string& done,
                              bool json, Make make) {
  auto rows = find_partials(f, what);
  if (!rows) return tl::unexpected(rows.error());
  for (const auto& row : *rows) {
    auto ordered = f.ask<ledger::done>("inspector", method, make(row));
    if (!ordered)
      return fail(ordered.error().code,
                  fmt::format("cannot {} the outputs of {}: {}", method, row.drv.to_string(), ordered.error().what));
    print({{"drv", row.drv.to_string()}, {"inhash", row.key.to_string()}, {"token", row.token.value}, {"done", done}},
          fmt::format("{}: {}", done, row.drv.to_string()), json);
  }
  return {};
}

} // namespace

expected<void> queue_command(farm& f, const queue_options& options, bool json) {
  std::vector<queued_job> jobs;
  job_queue page;
  get_queue query{options.offset, 0};
  do {
    query.limit = static_cast<std::uint32_t>(std::min(options.count - jobs.size(), page_rows_max));
    auto answer = f.ask<job_queue>("inspector", "queue", query);
    if (!answer) return tl::unexpected(answer.error());
    page = std::move(*answer);
    for (const auto& job : page.rows)
      if (json) std::cout << json_text(queued_job_json(job)) << '\n';
    jobs.insert(jobs.end(), page.rows.begin(), page.rows.end());
    query.offset += page.rows.size();
  } while (page.rows.size() == page_rows_max && jobs.size() < options.count);
  if (!json) print_table(queue_rows(jobs));
  if (!json && options.offset + jobs.size() < page.total)
    std::cout << fmt::format("… {} of {}; --offset {} goes on", jobs.size(), page.total, query.offset) << '\n';
  print_age(
      fmt::format("{} waiting, {} being assigned; what a request has not placed yet is not here, see 'coppice explain'",
                  counted(page.total, "job", "jobs"), page.assigned));
  return {};
}

expected<void> requests_command(farm& f, std::size_t count, bool json) {
  get_requests query;
  query.limit = static_cast<std::uint32_t>(count);
  auto found = f.ask<request_summaries>("gateway", "status", query);
  if (!found) return tl::unexpected(found.error());
  table_rows rows{{"ID", "STATE", "CLIENT", "SUBMITTED", "PRIO", "DONE", "BUILDING", "QUEUED", "BUILDS"}};
  std::size_t open = 0;
  for (const auto& row : found->rows) {
    auto out = summary_json(row);
    step_counts counts;
    bool counted_here = false;
    if (row.state == request_state::open && ++open <= followed_max) {
      auto progress = f.ask<request_progress>("gateway", "poll", poll_request{row.id, 0, 0});
      if (!progress) return tl::unexpected(progress.error());
      counts = progress->counts;
      counted_here = true;
      out["steps"] = progress_json(*progress)["steps"];
    }
    if (json) std::cout << json_text(out) << '\n';
    auto number = [&](std::uint64_t n) { return counted_here ? std::to_string(n) : std::string(); };
    auto builds = row.roots.empty() ? std::string() : short_name(row.roots.front());
    if (row.roots.size() > 1) builds += fmt::format(" and {} more", row.roots.size() - 1);
    rows.push_back({row.id.to_string(), std::string(to_string(row.state)), cleaned(row.client),
                    utc_text(row.submitted_ms), std::to_string(row.priority),
                    counted_here ? fmt::format("{}/{}", counts.built + counts.reused, counts.total) : "",
                    number(counts.building), number(counts.queued + counts.planned), builds});
  }
  if (!json) print_table(rows);
  print_age(fmt::format("{}, {} open", counted(found->rows.size(), "request", "requests"), open));
  return {};
}

expected<void> nodes_command(farm& f, bool json) {
  auto nodes = f.ask<node_statuses>("inspector", "nodes", get_nodes{});
  if (!nodes) return tl::unexpected(nodes.error());
  if (json)
    for (const auto& node : nodes->rows)
      std::cout << json_text(node_json(node)) << '\n';
  else
    print_table(node_rows(*nodes));
  print_age(counted(nodes->rows.size(), "machine", "machines"));
  return {};
}

expected<void> drain_command(farm& f, const drain_node& order, bool json) {
  auto done = f.ask<ledger::done>("inspector", "drain", order);
  if (!done)
    return fail(done.error().code,
                fmt::format("cannot {} the machine: {}", order.drained ? "drain" : "undrain", done.error().what));
  print({{"drained", order.drained}, {"why", order.why}},
        order.drained ? "drained: what runs is finished and uploaded, nothing more is started" : "undrained", json);
  return {};
}

expected<void> gone_command(farm& f, const std::string& what, bool json) {
  auto path = parse_store_path(what);
  if (!path) return tl::unexpected(path.error());
  auto gone = f.ask<path_info>("inspector", "gone", mark_gone{*path});
  if (!gone) return fail(gone.error().code, fmt::format("cannot forget {}: {}", what, gone.error().what));
  const auto by = gone->deriver ? gone->deriver->to_string() : std::string();
  print({{"gone", path->to_string()}, {"deriver", by}, {"blob", gone->blob.to_string()}},
        fmt::format("gone: {}\n{}", path->to_string(),
                    by.empty() ? "whoever needs it must submit it again"
                               : fmt::format("it is built again by {} when somebody needs it", by)),
        json);
  return {};
}

expected<void> partial_list_command(farm& f, bool json) {
  auto found = f.ask<partial_outputs>("inspector", "partials", get_partials{});
  if (!found) return tl::unexpected(found.error());
  if (json)
    for (const auto& row : found->rows)
      std::cout << json_text(partial_json(row)) << '\n';
  else
    print_table(partial_rows(*found));
  print_age(fmt::format("{} built and not committed", counted(found->rows.size(), "derivation", "derivations")));
  return {};
}

expected<void> partial_retry_command(farm& f, const std::string& what, bool json) {
  return order_partials(f, what, "retry", "tried again", json, [](auto& row) { return retry_partial{row.key}; });
}

expected<void> partial_drop_command(farm& f, const std::string& what, bool json) {
  return order_partials(f, what, "drop", "dropped", json, [](auto& row) { return drop_partial{row.key, row.token}; });
}

} // namespace coppice::app
