#include "apps/coppice/commands.hpp"

#include "apps/common/admin_report.hpp"
#include "apps/common/evaluate.hpp"
#include "apps/common/pages.hpp"
#include "apps/common/report.hpp"
#include "runtime/random.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>

namespace coppice::app {
namespace {

int exit_code_of(request_state state) {
  switch (state) {
  case request_state::succeeded: return exit_built;
  case request_state::cancelled: return exit_cancelled;
  case request_state::open:
  case request_state::failed: break;
  }
  return exit_failed;
}

/// The result as it is; for a request that ended before any of its roots did, with the roots.
request_result complete(const request_progress& over, const std::vector<request_root>& roots) {
  auto result = over.result.value_or(request_result{});
  result.state = over.state;
  for (const auto& root : roots) {
    const bool told = std::any_of(result.roots.begin(), result.roots.end(), [&](auto& r) { return r.drv == root.drv; });
    if (!told)
      result.roots.push_back(
          {root.drv, {}, over.state == request_state::cancelled ? failure::cancelled : failure::infra});
  }
  return result;
}

/// On standard error: how it ended.
void tell_end(client& c, const request_progress& over, const request_result& result) {
  c.screen().draw({});
  c.screen().say(ending_lines(result, over.counts, c.screen().options().colours));
  if (over.state == request_state::succeeded && over.counts.total > 0)
    c.screen().note(fmt::format("{}: {} built, {} reused", counted(over.counts.total, "derivation", "derivations"),
                                over.counts.built, over.counts.reused));
}

/// On standard output: a line of JSON per root, or the paths that were built.
void print_roots(const std::vector<request_root>& roots, const request_result& result, bool json) {
  if (json) {
    for (const auto& root : result.roots)
      std::cout << json_text(root_json(root)) << '\n';
  } else if (result.state == request_state::succeeded) {
    for (const auto& root : roots)
      for (const auto& output : wanted_outputs(root, result))
        std::cout << output.info.path.to_string() << '\n';
  }
  std::cout.flush();
}

void print_id(const request_id& id, bool json) {
  std::cout << (json ? json_text({{"id", id.to_string()}}) : id.to_string()) << std::endl;
}

/// What is known of one request.
expected<request_summary> summary_of(client& c, const request_id& id) {
  auto found = c.ask<request_summaries>("gateway", "status", get_requests{id, 1});
  if (!found) return tl::unexpected(found.error());
  if (found->rows.empty()) return fail(ec::not_found, fmt::format("no request {} is known", id.to_string()));
  return std::move(found->rows.front());
}

std::string roots_text(const std::vector<nix::store_path>& roots) {
  if (roots.empty()) return {};
  auto text = short_name(roots.front());
  if (roots.size() > 1) text += fmt::format(" and {} more", roots.size() - 1);
  return text;
}

} // namespace

expected<int> submit_command(client& c, const build_options& options, bool json) {
  const auto id = rt::random_id<request_id>();
  auto body = submit(c, options, id);
  if (!body) return tl::unexpected(body.error());
  c.screen().draw({});
  print_id(id, json);
  return exit_built;
}

expected<int> build_command(client& c, const build_options& options, bool json) {
  if (options.detach) return submit_command(c, options, json);
  auto attached = options;
  if (!attached.when_client_leaves) attached.when_client_leaves = on_disconnect::cancel;
  const bool cancels = *attached.when_client_leaves == on_disconnect::cancel;
  const auto id = rt::random_id<request_id>();
  auto body = submit(c, attached, id);
  if (!body) return tl::unexpected(body.error());
  auto over = c.follow(id, cancels ? on_interrupt::cancel : on_interrupt::leave);
  if (!over) return tl::unexpected(over.error());
  const auto result = complete(*over, body->roots);
  tell_end(c, *over, result);
  if (over->state == request_state::succeeded && !options.no_fetch)
    if (auto delivered = deliver(c, options, *body, result); !delivered) {
      print_roots(body->roots, result, json); // they are built all the same
      return tl::unexpected(delivered.error());
    }
  c.screen().draw({});
  print_roots(body->roots, result, json);
  return exit_code_of(over->state);
}

expected<int> watch_command(client& c, const request_id& id, bool json) {
  if (auto connected = c.connect(); !connected) return tl::unexpected(connected.error());
  auto summary = summary_of(c, id);
  if (!summary) return tl::unexpected(summary.error());
  c.began(summary->submitted_ms);
  auto over = c.follow(id, on_interrupt::leave);
  if (!over) return tl::unexpected(over.error());
  std::vector<request_root> roots;
  for (const auto& root : summary->roots)
    roots.push_back({root, {}});
  const auto result = complete(*over, roots);
  tell_end(c, *over, result);
  print_roots(roots, result, json);
  return exit_code_of(over->state);
}

expected<int> status_command(client& c, const request_id& id, bool json) {
  if (auto connected = c.connect(); !connected) return tl::unexpected(connected.error());
  if (id.empty()) {
    std::vector<std::vector<std::string>> rows{{"ID", "STATE", "CLIENT", "SUBMITTED", "BUILDS"}};
    auto listed = each_request(c, get_requests{}.limit, [&](const request_summary& row) {
      if (json)
        std::cout << json_text(summary_json(row)) << '\n';
      else
        rows.push_back({row.id.to_string(), std::string(to_string(row.state)), cleaned(row.client),
                        utc_text(row.submitted_ms), roots_text(row.roots)});
    });
    if (!listed) return tl::unexpected(listed.error());
    if (!json)
      for (const auto& line : table(rows, output_size().width))
        std::cout << line << '\n';
    return exit_built;
  }
  auto summary = summary_of(c, id);
  if (!summary) return tl::unexpected(summary.error());
  auto progress = c.ask<request_progress>("gateway", "poll", poll_request{id, 0, 0});
  if (!progress) return tl::unexpected(progress.error());
  if (json) {
    auto facts = summary_json(*summary);
    facts.update(progress_json(*progress));
    std::cout << json_text(facts) << '\n';
    return exit_built;
  }
  std::cout << fmt::format("request   {}\nstate     {}\nclient    {}\nsubmitted {}\npriority  {}\n", id.to_string(),
                           to_string(summary->state), cleaned(summary->client), utc_text(summary->submitted_ms),
                           summary->priority);
  for (const auto& root : summary->roots)
    std::cout << "root      " << root.to_string() << '\n';
  display view({.live = true});
  view.take(*progress, {});
  if (progress->counts.total > 0) std::cout << "steps     " << view.counts_text() << '\n';
  for (const auto& step : progress->running)
    std::cout << fmt::format("running   {} on {} for {}{}\n", short_name(step.drv), cleaned(step.node.value),
                             duration_text(std::chrono::milliseconds{step.elapsed_ms}),
                             step.phase.empty() ? "" : ": " + cleaned(step.phase));
  if (progress->result)
    for (const auto& line : ending_lines(*progress->result, progress->counts, false))
      std::cout << line << '\n';
  return exit_built;
}

expected<int> cancel_command(client& c, const cancel_request& what, bool json) {
  if (auto connected = c.connect(); !connected) return tl::unexpected(connected.error());
  auto done = c.ask<accepted>("gateway", "cancel", what);
  if (!done) return tl::unexpected(done.error());
  if (json)
    std::cout << json_text({{"id", what.id.to_string()}, {"state", to_string(done->state)}}) << '\n';
  else
    std::cout << fmt::format("request {}: {}\n", what.id.to_string(), to_string(done->state));
  return exit_built;
}

expected<int> explain_command(client& c, const std::string& what, bool json) {
  auto path = parse_store_path(what);
  if (!path) return tl::unexpected(path.error());
  if (auto connected = c.connect(); !connected) return tl::unexpected(connected.error());
  auto found = c.ask<explanation>("inspector", "explain", explain_query{*path});
  if (!found) return tl::unexpected(found.error());
  const auto width = output_size().width;
  if (json)
    std::cout << json_text(explanation_json(*found)) << '\n';
  else
    for (const auto& line : explanation_lines(*found, *path))
      std::cout << (width ? fitted(line, width) : line) << '\n';
  std::cout.flush();
  return exit_built;
}

} // namespace coppice::app
