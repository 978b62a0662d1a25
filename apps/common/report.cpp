#include "apps/common/report.hpp"

#include "apps/common/text.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace coppice::app {

using nlohmann::json;

namespace {

double seconds(std::int64_t ms) {
  return static_cast<double>(ms) / 1000;
}

} // namespace

std::vector<std::string> failure_lines(const failed_step& failed, bool colours) {
  const auto reason = failed.reason.empty() ? std::string(to_string(failed.failure)) : failed.reason;
  std::vector<std::string> lines;
  // A reason may have several lines, as that of a hash mismatch.
  for (const auto& part : last_lines(reason, reason_lines_shown)) {
    const auto first =
        fmt::format("{} build of '{}' failed: ", painted(colour::red, "error:", colours), failed.drv.to_string());
    lines.push_back((lines.empty() ? first : "       ") + cleaned(part));
  }
  const auto log = last_lines(failed.log_tail, log_lines_shown);
  if (!log.empty()) lines.push_back(fmt::format("       last {} of its log:", counted(log.size(), "line", "lines")));
  for (const auto& line : log)
    lines.push_back("> " + cleaned(line));
  if (failed.token.value != 0 || !log.empty())
    lines.push_back(fmt::format("       for the full log, run: coppice log {}", failed.drv.to_string()));
  return lines;
}

std::vector<std::string> ending_lines(const request_result& result, const step_counts& counts, bool colours) {
  std::vector<std::string> lines;
  if (result.state == request_state::succeeded) return lines;
  for (const auto& failed : result.failures) {
    const auto more = failure_lines(failed, colours);
    lines.insert(lines.end(), more.begin(), more.end());
  }
  if (counts.failed > result.failures.size() && !result.failures.empty())
    lines.push_back(fmt::format("… and {} more failed",
                                counted(counts.failed - result.failures.size(), "derivation", "derivations")));
  if (counts.not_attempted > 0)
    lines.push_back(
        fmt::format("{} not attempted", counted(counts.not_attempted, "derivation was", "derivations were")));
  if (result.state == request_state::cancelled)
    lines.push_back(result.reason.empty() ? "cancelled" : cleaned(result.reason));
  else if (!result.reason.empty() && result.failures.empty())
    lines.push_back(fmt::format("{} {}", painted(colour::red, "error:", colours), cleaned(result.reason)));
  return lines;
}

json root_json(const root_result& root) {
  auto outputs = json::object();
  for (const auto& output : root.outputs)
    outputs[output.name] = output.info.path.to_string();
  return {{"drv", root.drv.to_string()}, {"outputs", std::move(outputs)}, {"result", to_string(root.failure)}};
}

json result_json(const request_result& result) {
  auto roots = json::array(), failures = json::array();
  for (const auto& root : result.roots)
    roots.push_back(root_json(root));
  for (const auto& failed : result.failures)
    failures.push_back({{"drv", failed.drv.to_string()},
                        {"result", to_string(failed.failure)},
                        {"reason", failed.reason},
                        {"log_tail", failed.log_tail}});
  return {{"state", to_string(result.state)}, {"roots", std::move(roots)},
          {"failures", std::move(failures)},  {"built", result.built},
          {"reused", result.reused},          {"reason", result.reason}};
}

json summary_json(const request_summary& summary) {
  auto roots = json::array();
  for (const auto& root : summary.roots)
    roots.push_back(root.to_string());
  json out{
      {"id", summary.id.to_string()}, {"state", to_string(summary.state)},          {"client", summary.client},
      {"roots", std::move(roots)},    {"submitted", seconds(summary.submitted_ms)}, {"priority", summary.priority}};
  if (summary.result) out["result"] = result_json(*summary.result);
  return out;
}

json progress_json(const request_progress& progress) {
  const auto& c = progress.counts;
  auto running = json::array();
  for (const auto& step : progress.running)
    running.push_back({{"drv", step.drv.to_string()},
                       {"node", step.node.value},
                       {"token", step.token.value},
                       {"elapsed_s", seconds(step.elapsed_ms)},
                       {"phase", step.phase}});
  return {{"id", progress.id.to_string()},
          {"state", to_string(progress.state)},
          {"running", std::move(running)},
          {"steps",
           {{"total", c.total},
            {"planned", c.planned},
            {"queued", c.queued},
            {"building", c.building},
            {"built", c.built},
            {"reused", c.reused},
            {"failed", c.failed},
            {"not_attempted", c.not_attempted}}}};
}

std::string attempt_result(const ledger::attempt_row& attempt) {
  return attempt.ended_ms ? std::string(to_string(attempt.result)) : "running";
}

json attempt_json(const ledger::attempt_row& attempt) {
  return {{"inhash", attempt.key.to_string()},
          {"drv", attempt.drv.to_string()},
          {"node", attempt.node.value},
          {"token", attempt.token.value},
          {"result", attempt_result(attempt)},
          {"reason", attempt.reason},
          {"started", seconds(attempt.started_ms)},
          {"ended", attempt.ended_ms ? json(seconds(*attempt.ended_ms)) : json()},
          {"wall", seconds(attempt.usage.wall_ms)},
          {"cpu_user", seconds(attempt.usage.cpu_user_ms)},
          {"cpu_system", seconds(attempt.usage.cpu_system_ms)},
          {"memory_peak_bytes", attempt.usage.memory_peak_bytes},
          {"log_bytes", attempt.usage.log_bytes}};
}

json failure_json(const ledger::failure_row& failure) {
  return {{"inhash", failure.key.to_string()},
          {"drv", failure.drv.to_string()},
          {"class", to_string(failure.failure)},
          {"count", failure.count},
          {"last", failure.last_ms > 0 ? json(seconds(failure.last_ms)) : json()},
          {"remembered", failure.remembered},
          {"reason", failure.reason}};
}

json lock_json(const ledger::lock_state& lock) {
  return {{"inhash", lock.key.to_string()},   {"drv", lock.drv.to_string()},
          {"token", lock.token.value},        {"phase", ledger::to_string(lock.phase)},
          {"node", lock.node.value},          {"session", lock.holder.session.to_string()},
          {"infra_deaths", lock.infra_deaths}};
}

std::string json_text(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

} // namespace coppice::app
