#pragma once

#include "messages/client.hpp"

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <string>
#include <vector>

/// Results as people and scripts read them; times in JSON are seconds, of the Unix epoch or of a duration. Pure.
namespace coppice::app {

/// Lines of a failed build's log that are shown.
inline constexpr std::size_t log_lines_shown = 20;
/// Lines of a reason that are shown, the last ones: more than fit into one, so that its beginning is always there.
inline constexpr std::size_t reason_lines_shown = 200;

/// "error: build of '/nix/store/….drv' failed: REASON", the end of its log, how to see all of it.
std::vector<std::string> failure_lines(const failed_step& failed, bool colours);

/// What a person is told at the end of a request: its failures and how many steps were not attempted; nothing of a
/// success.
std::vector<std::string> ending_lines(const request_result& result, const step_counts& counts, bool colours);

/// {drv, outputs: {name: path}, result: "success" or the class of the failure}.
nlohmann::json root_json(const root_result& root);

nlohmann::json result_json(const request_result& result);
nlohmann::json summary_json(const request_summary& summary);
nlohmann::json progress_json(const request_progress& progress);
nlohmann::json attempt_json(const ledger::attempt_row& attempt);
nlohmann::json failure_json(const ledger::failure_row& failure);
nlohmann::json lock_json(const ledger::lock_state& lock);

/// "success", the class of the failure, or "running".
std::string attempt_result(const ledger::attempt_row& attempt);

/// JSON on one line; bytes that are no UTF-8 are replaced.
std::string json_text(const nlohmann::json& json);

} // namespace coppice::app
