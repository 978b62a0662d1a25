#pragma once

#include "apps/common/step_forest.hpp"
#include "apps/common/text.hpp"
#include "messages/client.hpp"

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

/// What a person sees of a request while it runs. Pure: progress in, lines out.
namespace coppice::app {

/// How much is told, and how.
struct display_options {
  bool live = false; ///< a block at the bottom is redrawn in place: for terminals
  bool colours = false;
  bool quiet = false; ///< no lines but those of failures, no block
};

struct screen_size {
  std::size_t width = 80;
  std::size_t height = 24;
};

/// Knows what was told already, so that repeated and renumbered events tell nothing twice.
class display {
public:
  using time_point = std::chrono::steady_clock::time_point;

  explicit display(display_options options) : options_(options) {}

  /// What the request wants built, if that is known here: the block is a forest then, and tells how long it may take.
  void know(step_graph graph) { forest_.emplace(std::move(graph)); }
  /// The request is as old as that; else it began with the first news.
  void began(time_point when) { began_ = when; }

  /// Takes the news; gives the lines that stay, to be printed above the block.
  std::vector<std::string> take(const request_progress& news, time_point now);

  /// The farm does not answer; `endpoint` is what was tried last. Gives a line the first time, if there is no block.
  std::vector<std::string> away(const std::string& endpoint, time_point now);
  bool is_away() const { return away_.has_value(); }
  /// It has answered. Gives a line if away() gave one.
  std::vector<std::string> back();

  /// Names (nix::name_without_version) whose builds' durations in the past would help now; each only once, at most
  /// `names_max`. None unless live.
  std::vector<std::string> names_to_ask(std::size_t names_max);
  /// The answer: milliseconds in the same order, 0 for what was never built.
  void learn(const std::vector<std::string>& names, const std::vector<std::int64_t>& usual_ms);

  /// The block for a terminal of this size, at most size.height - 1 lines, each shorter than size.width columns; empty
  /// unless live.
  std::vector<std::string> block(time_point now, screen_size size);

  /// "12/131 built · 2 running · 40 queued · 3 reused"; what is zero is left out, but for the first.
  std::string counts_text() const;

  const step_counts& counts() const { return counts_; }

private:
  std::optional<std::string> line_of(const step_event& event);
  std::vector<running_step> running_at(time_point now) const;
  std::vector<forest_row> rows(const std::vector<running_step>& running, std::size_t room, std::size_t width);
  std::string row_line(const forest_row& row, const std::vector<running_step>& running, std::size_t width) const;
  std::string running_line(const std::string& branch, const running_step& step, std::size_t width) const;
  std::string total_line(const std::vector<running_step>& running, time_point now, std::size_t width);

  display_options options_;
  step_counts counts_;
  std::vector<running_step> running_;
  time_point received_{};                            // when running_ was
  std::map<nix::store_path, std::string> last_told_; // per derivation; bounded by the graph
  struct absence {
    std::string endpoint;
    time_point since;
  };
  std::optional<absence> away_;
  bool lost_told_ = false;
  bool caught_up_ = false; // no event is known to be still on its way
  std::optional<step_forest> forest_;
  std::optional<time_point> began_;
  std::map<std::string, std::int64_t> usual_ms_; // per name that was asked for; bounded by the graph
  std::size_t parallel_ = 0;                     // as many as ever ran at once
  std::uint64_t bytes_ = 0;                      // of what was built
  std::string waits_for_; // as it was told
};

/// A derivation's name for people: without hash and ".drv".
std::string short_name(const nix::store_path& drv);

/// The bytes to write to a terminal so that a block of lines at its bottom is replaced. Pure; knows what it drew.
class live_block {
public:
  /// Replaces the block that stands there by `above`, which scrolls away, and `block`.
  std::string draw(const std::vector<std::string>& above, const std::vector<std::string>& block, screen_size size);

private:
  std::size_t rows_on(std::size_t width) const;
  std::vector<std::size_t> drawn_; // columns of each line of the block that stands there
};

} // namespace coppice::app
