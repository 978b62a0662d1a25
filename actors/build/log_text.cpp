#include "actors/build/log_text.hpp"

#include "messages/utf8.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace coppice::actors {
namespace {

constexpr std::string_view nix_prefix = "@nix ";

/// What a terminal shows of a line after carriage returns.
std::string_view after_return(std::string_view line) {
  while (line.ends_with('\r'))
    line.remove_suffix(1);
  return line.substr(line.rfind('\r') + 1); // npos + 1 is 0
}

/// The phase of an "@nix {…}" line, or empty.
std::string told_phase(std::string_view line) {
  auto message = nlohmann::json::parse(line.substr(nix_prefix.size()), nullptr, false);
  if (!message.is_object() || message.value("action", nlohmann::json{}) != "setPhase") return {};
  auto phase = message.value("phase", nlohmann::json{});
  return phase.is_string() ? cleaned(phase.get<std::string>()) : "";
}

} // namespace

void log_text::feed(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto end = bytes.find('\n');
    line_ += bytes.substr(0, std::min(end, line_bytes_max - line_.size()));
    if (end == bytes.npos) return;
    bytes.remove_prefix(end + 1);
    // of a flood only the end will be seen
    if (bytes.size() < 2 * log_tail_bytes_max || line_.starts_with(nix_prefix)) finish_line();
    line_.clear();
  }
}

void log_text::finish_line() {
  if (line_.starts_with(nix_prefix)) {
    if (auto phase = told_phase(line_); !phase.empty()) phase_ = std::move(phase);
    return;
  }
  auto text = cleaned(after_return(line_));
  if (text.find_first_not_of(' ') != text.npos) last_line_ = text;
  lines_bytes_ += text.size() + 1;
  lines_.push_back(std::move(text));
  while (lines_bytes_ > log_tail_bytes_max) {
    lines_bytes_ -= lines_.front().size() + 1;
    lines_.pop_front();
  }
}

std::string log_text::last_line() const {
  auto text = line_.starts_with(nix_prefix) ? "" : cleaned(after_return(line_));
  return text.find_first_not_of(' ') == text.npos ? last_line_ : text;
}

std::string log_text::tail() const {
  std::string text;
  for (const auto& line : lines_)
    text += line + "\n";
  if (!line_.starts_with(nix_prefix)) text += cleaned(after_return(line_));
  if (text.size() <= log_tail_bytes_max) return text;
  // whole lines only; one line alone is never that long
  return text.substr(text.find('\n', text.size() - log_tail_bytes_max - 1) + 1);
}

} // namespace coppice::actors
