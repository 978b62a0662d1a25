#include "apps/common/console.hpp"
#include "apps/common/report.hpp"
#include "apps/common/text.hpp"
#include "apps/common/tree_view.hpp"
#include "apps/coppice-admin/commands.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>
#include <mutex>
#include <thread>

namespace coppice::app {
namespace {

using clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds draw_interval{1'000}, answer_timeout{2'000};
/// Of one of several nodes: who is silent must not hold up the others.
constexpr std::chrono::milliseconds member_timeout{800};

/// Beyond this the tree is shown as old: it should have come again.
constexpr std::chrono::milliseconds fresh_max{2'500};

expected<actor_tree> ask(farm& f, const std::string& node) {
  return f.ask<actor_tree>(target_on(node, "observatory"), "tree", get_tree{}, answer_timeout);
}

/// The other nodes of the farm that offer themselves, or did; none if nobody can say.
std::vector<std::string> others(farm& f, const node_id& asked) {
  std::vector<std::string> names;
  auto nodes = f.ask_once<node_statuses>("inspector", "nodes", get_nodes{}, answer_timeout);
  if (!nodes) return names;
  for (auto& row : nodes->rows)
    if (row.what.node != asked) names.push_back(row.what.node.value);
  return names;
}

void print_silent(const std::string& node, const error& why, bool json) {
  if (json)
    std::cout << json_text({{"node", node}, {"silent", why.what}}) << std::endl;
  else
    std::cout << fmt::format("{}: no answer: {}", cleaned(node), cleaned(why.what)) << std::endl;
}

nlohmann::json json_of(const actor_tree& tree) {
  auto out = tree_json(as_tree(tree.actors));
  out["as_of"] = static_cast<double>(tree.at_ms) / 1000;
  return out;
}

void print(const actor_tree& tree, bool json) {
  if (json) {
    std::cout << json_text(json_of(tree)) << std::endl;
    return;
  }
  const auto width = output_size().width;
  for (const auto& line : tree_lines(as_tree(tree.actors), tree.node.value, width))
    std::cout << line << '\n';
  const auto age = fmt::format("(as of {}: {})", utc_text(tree.at_ms), counted(tree.actors.size(), "actor", "actors"));
  std::cout << (width ? fitted(age, width) : age) << std::endl;
}

/// The tree on a terminal: one thread asks, another draws what there is and how old it is.
class watched_tree {
public:
  void take(actor_tree tree) {
    const std::lock_guard lock(mutex_);
    tree_ = std::move(tree);
    received_ = clock::now();
  }
  void draw() {
    const std::lock_guard lock(mutex_);
    const auto size = output_size();
    if (!tree_ || size.width < 2 || size.height < 3) return;
    auto lines = tree_lines(as_tree(tree_->actors), tree_->node.value, size.width - 1);
    const auto room = size.height - 2; // for the line below, and where the shell goes on
    const auto hidden = lines.size() > room ? lines.size() - room + 1 : 0;
    lines.resize(lines.size() - hidden);
    if (hidden) lines.push_back(fmt::format("… and {} more", hidden));
    lines.push_back(fitted(age_line(), size.width - 1));
    lines.emplace_back();
    if (lines == drawn_ && size.width == size_.width && size.height == size_.height) return;
    std::cout << screen_.draw({}, lines, size) << std::flush;
    drawn_ = std::move(lines);
    size_ = size;
  }

private:
  std::string age_line() const {
    const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(clock::now() - received_);
    const auto when = "as of " + utc_text(tree_->at_ms);
    if (age <= fresh_max) return when + " · Ctrl-C leaves";
    return fmt::format("{} ago: the node does not answer, {}",
                       duration_text(std::chrono::floor<std::chrono::seconds>(age)), when);
  }

  std::mutex mutex_;
  std::optional<actor_tree> tree_;
  clock::time_point received_{};
  live_block screen_;
  std::vector<std::string> drawn_;
  screen_size size_{0, 0};
};

} // namespace

expected<void> tree_command(farm& f, const std::vector<std::string>& nodes, bool json) {
  for (const auto& node : nodes) {
    auto tree = f.ask_once<actor_tree>(target_on(node, "observatory"), "tree", get_tree{}, answer_timeout);
    if (!tree) return fail(tree.error().code, fmt::format("cannot draw the tree of {}: {}", node, tree.error().what));
    print(*tree, json);
  }
  if (!nodes.empty()) return {};
  auto own = ask(f, {});
  if (!own) return tl::unexpected(own.error());
  print(*own, json);
  for (const auto& node : others(f, own->node)) {
    auto tree = f.ask_once<actor_tree>(target_on(node, "observatory"), "tree", get_tree{}, member_timeout);
    if (tree)
      print(*tree, json);
    else
      print_silent(node, tree.error(), json);
  }
  return {};
}

int watch_tree_command(const farm_options& options, const std::string& node, rt::signals& signals, bool json) {
  std::atomic<bool> stop{false};
  watched_tree shown;
  const bool live = !json && output_size().width > 0;
  const auto work = [&]() -> int {
    auto f = farm::find(options, stop);
    if (!f) return complain("coppice-admin", f.error());
    while (!stop) {
      auto tree = ask(*f, node);
      if (!tree && !stop) return complain("coppice-admin", tree.error());
      if (!tree) break;
      if (live)
        shown.take(std::move(*tree));
      else
        print(*tree, json);
      for (const auto next = clock::now() + draw_interval; !stop && clock::now() < next;)
        std::this_thread::sleep_for(std::chrono::milliseconds{50});
    }
    return exit_built;
  };
  attention what;
  if (live) what.redraw = [&] { shown.draw(); };
  what.interrupted = [&] { stop = true; };
  return attend(signals, work, what);
}

} // namespace coppice::app
