#include "apps/common/event_text.hpp"

#include "apps/common/display.hpp"
#include "apps/common/text.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace coppice::app {
namespace {

/// How it ended, if the kind is about that; else empty.
std::string_view result_of(const farm_event& e) {
  switch (e.kind) {
  case event_kind::request_ended: return to_string(e.outcome);
  case event_kind::attempt_ended: return to_string(e.failure);
  case event_kind::step_ended: return to_string(e.step);
  default: return {};
  }
}

/// What is counted, if the kind counts anything.
std::string count_text(const farm_event& e) {
  switch (e.kind) {
  case event_kind::request_accepted: return counted(e.count, "root", "roots");
  case event_kind::request_ended: return fmt::format("{} built", e.count);
  case event_kind::reconciled: return counted(e.count, "correction", "corrections");
  default: return {};
  }
}

std::string subject(const farm_event& e) {
  if (e.drv) return short_name(*e.drv);
  if (!e.actor.empty()) return cleaned(e.actor);
  return e.request.empty() ? std::string{} : "request " + e.request.to_string().substr(0, 8);
}

} // namespace

std::string event_line(const farm_event& e) {
  std::vector<std::string> says;
  auto say = [&](std::string text) {
    if (!text.empty()) says.push_back(std::move(text));
  };
  say(std::string(result_of(e)));
  if (e.kind == event_kind::step_ended && e.failure != failure::none) say(std::string(to_string(e.failure)));
  say(count_text(e));
  if (e.duration_ms > 0)
    say((e.kind == event_kind::actor_died ? "again in " : "took ") +
        duration_text(std::chrono::milliseconds{e.duration_ms}));
  if (e.bytes > 0) say(bytes_text(e.bytes));
  if (e.token.value > 0) say(fmt::format("token {}", e.token.value));
  if (!e.node.empty()) say("on " + cleaned(e.node.value));
  say(cleaned(e.text.substr(0, e.text.find('\n'))));
  return fmt::format("{}  {:<16}  {}{}{}", utc_text(e.at_ms).substr(11, 8), to_string(e.kind), subject(e),
                     says.empty() ? "" : "  ", fmt::join(says, ", "));
}

nlohmann::json event_json(const farm_event& e, std::uint64_t stream) {
  auto seconds = [](std::int64_t ms) { return static_cast<double>(ms) / 1000; };
  nlohmann::json out{{"epoch", stream}, {"seq", e.seq}, {"time", seconds(e.at_ms)}, {"event", to_string(e.kind)}};
  if (!e.request.empty()) out["request"] = e.request.to_string();
  if (e.drv) out["drv"] = e.drv->to_string();
  if (!e.key.empty()) out["inhash"] = e.key.to_string();
  if (e.token.value > 0) out["token"] = e.token.value;
  if (!e.node.empty()) out["node"] = e.node.value;
  if (!e.actor.empty()) out["actor"] = e.actor;
  if (auto result = result_of(e); !result.empty()) out["result"] = result;
  if (e.kind == event_kind::step_ended && e.failure != failure::none) out["class"] = to_string(e.failure);
  if (e.duration_ms > 0) out["seconds"] = seconds(e.duration_ms);
  if (e.bytes > 0) out["bytes"] = e.bytes;
  if (!count_text(e).empty()) out["count"] = e.count;
  if (!e.text.empty()) out["text"] = e.text;
  return out;
}

std::string actor_label(const std::string& path) {
  // "/NODE/part/actor" is declared once and for all; what stands below it came at run time
  auto from = path.find('/', 1);
  if (from == std::string::npos) return "/";
  auto part = path.find('/', from + 1);
  auto below = part == std::string::npos ? part : path.find('/', part + 1);
  return below == std::string::npos ? path.substr(from) : path.substr(from, below - from) + "/*";
}

} // namespace coppice::app
