#pragma once

#include "apps/common/closure.hpp"
#include "messages/client.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

/// What of a request's graph is worth a line: what runs, what failed, and for whom. Pure.
namespace coppice::app {

/// Derivations and which of them are inputs of which; no cycle.
struct step_graph {
  struct node {
    nix::store_path drv;
    std::vector<std::uint32_t> inputs;
  };
  std::vector<node> nodes;
  std::vector<std::uint32_t> roots;
};

/// `roots` are in the closure.
step_graph graph_of(const derivation_closure& closure, const std::vector<request_root>& roots);

/// One line of the forest, without its words.
struct forest_row {
  enum class kind { waiting, given_up, running, failed, more };
  std::string branch; ///< box characters before it, e.g. "│  └─ "; dotted if steps between are left out
  kind what = kind::more;
  nix::store_path drv;    ///< but of `more`
  std::size_t number = 0; ///< running: its place in what was given; waiting: inputs it waits for; more: rows left out
  bool operator==(const forest_row&) const = default;
};

/// How much of the way from a root to what runs is shown.
enum class forest_depth { flat, roots, waiting };

/// Follows a request's events over its graph. Taking one costs as much as the step has dependants, a picture as much as
/// it has rows.
class step_forest {
public:
  using ms = std::chrono::milliseconds;

  explicit step_forest(step_graph graph);

  void take(const step_event& event);

  /// At most `room` rows: for each of `running` (in that order, which should be a stable one) and for the last failures
  /// a leaf, below the nearest step that waits for it, below the root. With too little room for that the waiting steps
  /// between are left out first, then the roots, then leaves.
  std::vector<forest_row> rows(const std::vector<running_step>& running, std::size_t room, forest_depth most);

  /// Names (nix::name_without_version) of what must still be built, each told once; at most `names_max`.
  std::vector<std::string> names_to_ask(std::size_t names_max);
  /// Builds of that name usually take so long.
  void learn(const std::string& name, ms usual);

  /// How long the request may still take, if `running` are what runs and at most `parallel` steps ever did at once;
  /// empty if the past tells the duration of less than half of what is left.
  std::optional<ms> rest(const std::vector<running_step>& running, std::size_t parallel);

  /// Failures that have a row.
  static constexpr std::size_t failures_shown_max = 3;
  /// Dependants of a step among which the nearest waiting one is looked for.
  static constexpr std::size_t dependants_seen_max = 1000;

private:
  static constexpr std::uint32_t none = UINT32_MAX;
  enum class state : std::uint8_t { open, done, failed, given_up };
  struct leaf {
    forest_row row;
    std::uint32_t above = none; ///< the nearest waiting step
    std::uint32_t root = none;
    std::size_t levels = 0; ///< from the root to `above`
  };

  void find_wanted();
  void find_paths();
  void sum_up();
  std::uint32_t index_of(const nix::store_path& drv) const;
  std::uint32_t nearest_waiting(std::uint32_t node);
  leaf leaf_of(std::uint32_t node, forest_row row);
  std::vector<leaf> leaves_of(const std::vector<running_step>& running, std::size_t leaves_max);
  std::vector<forest_row> draw(const std::vector<leaf>& leaves, forest_depth depth) const;
  bool waits(std::uint32_t node) const { return wanted_[node] && state_[node] == state::open; }
  std::int64_t cost(std::uint32_t node) const { return usual_[node] > 0 ? usual_[node] : mean_; }

  step_graph graph_;
  std::map<nix::store_path, std::uint32_t> index_;
  std::vector<std::vector<std::uint32_t>> dependants_;
  std::vector<std::uint32_t> order_; ///< each before its inputs
  std::vector<state> state_;
  std::vector<std::uint32_t> failures_;

  // found by find_wanted(), when `stale_`
  std::vector<bool> wanted_;                       ///< reached from a root by steps that were not there already
  std::vector<std::uint32_t> parent_, root_of_;    ///< on a shortest way to a root
  std::vector<std::uint32_t> depth_, open_inputs_; ///< steps on that way; inputs that are not done
  std::vector<std::uint32_t> above_;               ///< what nearest_waiting() chose
  bool stale_ = true;

  std::map<std::string, std::vector<std::uint32_t>> named_;
  std::vector<const std::string*> unasked_;
  bool listed_ = false;             ///< unasked_ was filled
  std::vector<std::int64_t> usual_; ///< ms; 0: not known
  std::int64_t mean_ = 0;           ///< of those known
  // found by sum_up() and find_paths(), when stale
  bool sums_stale_ = true, paths_stale_ = true;
  std::int64_t left_ms_ = 0;
  std::size_t left_ = 0, left_known_ = 0;
  std::vector<std::int64_t> path_ms_; ///< of what must follow a step, the longest way
};

} // namespace coppice::app
