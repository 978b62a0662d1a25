#include "apps/common/admin_report.hpp"

#include "apps/common/display.hpp"
#include "apps/common/text.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace coppice::app {
namespace {

using nlohmann::json;

double seconds(std::int64_t ms) {
  return static_cast<double>(ms) / 1000;
}

std::string ago(std::int64_t ms) {
  return duration_text(std::chrono::milliseconds{ms});
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words)
    text += (text.empty() ? "" : ",") + cleaned(word);
  return text;
}

std::string slots_text(std::uint32_t free, std::uint32_t all) {
  return fmt::format("{}/{}", free, all);
}

} // namespace

json queued_job_json(const queued_job& job) {
  return {{"position", job.position},
          {"drv", job.drv.to_string()},
          {"inhash", job.key.to_string()},
          {"request", job.request.to_string()},
          {"priority", job.priority},
          {"critical_path", job.critical_path},
          {"io_bound", job.io_bound},
          {"waiting_s", seconds(job.waiting_ms)},
          {"why", job.why}};
}

std::vector<std::string> queued_job_cells(const queued_job& job) {
  return {std::to_string(job.position), job.io_bound ? "io" : "cpu",
          std::to_string(job.priority), std::to_string(job.critical_path),
          ago(job.waiting_ms),          job.request.to_string().substr(0, 8),
          short_name(job.drv),          job.why.empty() ? "is being placed" : cleaned(job.why)};
}

json node_json(const node_status& node) {
  const auto& o = node.what;
  return {{"node", o.node.value},
          {"slots", o.slots},
          {"slots_free", o.slots_free},
          {"io_slots", o.io_slots},
          {"io_slots_free", o.io_slots_free},
          {"cores", o.share.all.cores},
          {"cores_left", o.share.left.cores},
          {"memory_left_bytes", o.share.left.memory_bytes},
          {"disk_left_bytes", o.share.left.disk_bytes},
          {"systems", o.systems},
          {"features", o.features},
          {"memory_bytes", o.room.memory_bytes},
          {"memory_available_bytes", o.room.memory_available_bytes},
          {"disk_free_bytes", o.room.disk_free_bytes},
          {"drained", !o.room.drained.empty()},
          {"drained_why", o.room.drained},
          {"short_of", o.short_of},
          {"mandatory_features", o.mandatory_features},
          {"busy", o.busy},
          {"io_busy", o.io_busy},
          {"pressure",
           {{"cpu", o.room.pressure.cpu},
            {"memory", o.room.pressure.memory},
            {"io", o.room.pressure.io},
            {"load", o.room.pressure.load}}},
          {"version", o.version},
          {"online", node.online},
          {"since_s", seconds(node.since_ms)},
          {"heard_s", seconds(node.heard_ms)}};
}

std::vector<std::string> node_cells(const node_status& node) {
  const auto& o = node.what;
  const auto& p = o.room.pressure;
  return {cleaned(o.node.value),
          !node.online              ? "offline"
          : !o.room.drained.empty() ? "drained"
          : !o.short_of.empty()     ? "short"
                                    : "ready",
          slots_text(o.slots_free, o.slots),
          slots_text(o.io_slots_free, o.io_slots),
          std::to_string(o.busy + o.io_busy),
          slots_text(o.share.left.cores, o.share.all.cores),
          bytes_text(o.room.memory_available_bytes),
          bytes_text(o.room.disk_free_bytes),
          ago(node.since_ms),
          ago(node.heard_ms) + " ago",
          cleaned(o.version),
          p.load > 0 ? fmt::format("load {:.1f}", p.load / 100.0)
                     : fmt::format("cpu {} mem {} io {}", p.cpu, p.memory, p.io),
          joined(o.systems),
          joined(o.features),
          cleaned(o.short_of)};
}

json partial_json(const partial_output& output) {
  auto paths = json::array();
  for (const auto& path : output.outputs)
    paths.push_back(path.to_string());
  return {{"inhash", output.key.to_string()},
          {"token", output.token.value},
          {"drv", output.drv.to_string()},
          {"node", output.node.value},
          {"outputs", std::move(paths)},
          {"nar_bytes", output.nar_bytes},
          {"doing", output.doing}};
}

std::vector<std::string> partial_cells(const partial_output& output) {
  return {std::to_string(output.token.value),   cleaned(output.node.value),
          bytes_text(output.nar_bytes),         short_name(output.drv),
          output.key.to_string().substr(0, 12), cleaned(output.doing)};
}

} // namespace coppice::app
