#pragma once

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

  /// Takes the news; gives the lines that stay, to be printed above the block.
  std::vector<std::string> take(const request_progress& news, time_point now);

  /// The farm does not answer; `endpoint` is what was tried last. Gives a line the first time, if there is no block.
  std::vector<std::string> away(const std::string& endpoint, time_point now);

  /// The block for a terminal of this size, at most size.height - 1 lines, each shorter than size.width columns; empty
  /// unless live.
  std::vector<std::string> block(time_point now, screen_size size) const;

  /// "12/131 built · 2 running · 40 queued · 3 reused"; what is zero is left out, but for the first.
  std::string counts_text() const;

  const step_counts& counts() const { return counts_; }

private:
  std::optional<std::string> line_of(const step_event& event);
  std::string running_line(const running_step& step, time_point now, std::size_t width) const;

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
