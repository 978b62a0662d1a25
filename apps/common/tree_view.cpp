#include "apps/common/tree_view.hpp"

#include "apps/common/text.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace coppice::app {
namespace {

/// The branch of that path below `top`, filled in as needed.
actor_branch& branch_of(actor_branch& top, std::string_view path) {
  auto* at = &top;
  std::size_t from = 1;
  while (from < path.size()) {
    const auto end = std::min(path.find('/', from), path.size());
    const auto prefix = path.substr(0, end);
    const auto before = [](const actor_branch& child, std::string_view p) { return child.status.path < p; };
    auto child = std::lower_bound(at->children.begin(), at->children.end(), prefix, before);
    if (child == at->children.end() || child->status.path != prefix) {
      child = at->children.insert(child, actor_branch{});
      child->status.path = prefix;
      child->status.state = actor_state::up;
    }
    at = &*child;
    from = end + 1;
  }
  return *at;
}

/// So long after a restart its reason says more than what the actor is doing.
constexpr std::chrono::seconds end_shown_first{60};

std::string what_of(const actor_status& status) {
  auto text = cleaned(status.doing);
  if (status.busy_ms >= 1000)
    text += fmt::format("{}busy for {}", text.empty() ? "" : ", ",
                        duration_text(std::chrono::milliseconds{status.busy_ms}));
  if (status.restart_in_ms > 0)
    text += fmt::format("{}starts again in {}", text.empty() ? "" : ", ",
                        duration_text(std::chrono::milliseconds{status.restart_in_ms}));
  const bool down = status.state == actor_state::restarting;
  if ((status.restarts == 0 && !down) || status.last_exit.empty()) return text;
  const auto end = "(last end: " + cleaned(status.last_exit) + ")";
  if (text.empty()) return end;
  const bool fresh = down || std::chrono::milliseconds{status.uptime_ms} < end_shown_first;
  return fresh ? end + " " + text : text + " " + end; // the rest is cut where there is no room
}

/// What fits beside the name; each column costs what its heading takes.
struct columns_shown {
  explicit columns_shown(std::size_t width)
      : uptime(width == 0 || width >= 90), handled(width == 0 || width >= 110), counts(width == 0 || width >= 70) {}
  bool uptime, handled, counts;

  std::vector<std::string> cells(std::string name, std::string state, std::string up, std::string restarts,
                                 std::string mailbox, std::string done, std::string doing) const {
    std::vector<std::string> row{std::move(name), std::move(state)};
    if (uptime) row.push_back(std::move(up));
    if (counts) row.insert(row.end(), {std::move(restarts), std::move(mailbox)});
    if (handled) row.push_back(std::move(done));
    row.push_back(std::move(doing));
    return row;
  }
};

void add_rows(std::vector<std::vector<std::string>>& rows, const actor_branch& branch, const std::string& name,
              const std::string& indent, const columns_shown& shown, std::size_t name_max) {
  const auto& s = branch.status;
  rows.push_back(shown.cells(name_max ? fitted(name, name_max) : name, std::string(to_string(s.state)),
                             duration_text(std::chrono::milliseconds{s.uptime_ms}), std::to_string(s.restarts),
                             std::to_string(s.mailbox), std::to_string(s.handled), what_of(s)));
  for (const auto& child : branch.children) {
    const bool last = &child == &branch.children.back();
    const auto& path = child.status.path;
    add_rows(rows, child, indent + (last ? "└─ " : "├─ ") + cleaned(path.substr(path.rfind('/') + 1)),
             indent + (last ? "   " : "│  "), shown, name_max);
  }
}

} // namespace

actor_branch as_tree(const std::vector<actor_status>& actors) {
  actor_branch top;
  top.status.path = "/";
  top.status.state = actor_state::up;
  for (const auto& actor : actors)
    if (actor.path.starts_with('/')) branch_of(top, actor.path).status = actor;
  const bool has_root = top.children.size() == 1; // the supervisor of all, named like the node
  return has_root ? actor_branch(std::move(top.children.front())) : top;
}

nlohmann::json tree_json(const actor_branch& top) {
  const auto& s = top.status;
  auto children = nlohmann::json::array();
  for (const auto& child : top.children)
    children.push_back(tree_json(child));
  return {{"path", s.path},
          {"kind", s.kind},
          {"state", to_string(s.state)},
          {"restarts", s.restarts},
          {"last_exit", s.last_exit},
          {"restart_in_ms", s.restart_in_ms},
          {"uptime_s", static_cast<double>(s.uptime_ms) / 1000},
          {"mailbox", s.mailbox},
          {"handled", s.handled},
          {"in_flight", s.in_flight},
          {"buffered", s.buffered},
          {"busy_ms", s.busy_ms},
          {"doing", s.doing},
          {"children", std::move(children)}};
}

std::vector<std::string> tree_lines(const actor_branch& top, const std::string& node, std::size_t width) {
  const columns_shown shown(width);
  std::vector<std::vector<std::string>> rows{
      shown.cells("ACTOR", "STATE", "UPTIME", "RESTARTS", "MAILBOX", "HANDLED", "DOING")};
  add_rows(rows, top, cleaned(node), "", shown, width / 2);
  return table(rows, width);
}

} // namespace coppice::app
