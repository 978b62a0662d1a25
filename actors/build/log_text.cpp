#include "actors/build/log_text.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace coppice::actors {
namespace {

constexpr std::string_view nix_prefix = "@nix ";

/// Length of the terminal sequence at the beginning of `s`, which starts with ESC.
std::size_t sequence_length(std::string_view s) {
  if (s.size() < 2) return 1;
  if (s[1] == '[') {
    std::size_t i = 2;
    while (i < s.size() && (s[i] < 0x40 || s[i] > 0x7e))
      ++i;
    return std::min(i + 1, s.size());
  }
  if (s[1] == ']') {
    auto end = s.find_first_of("\a\033", 2);
    if (end == s.npos) return s.size();
    return s[end] == '\a' ? end + 1 : std::min(end + 2, s.size());
  }
  return 2;
}

/// Length of the valid UTF-8 character at the beginning of `s`; 0 if it is none.
std::size_t character_length(std::string_view s) {
  auto byte = [s](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0U; };
  const auto first = byte(0);
  const std::size_t length = first < 0x80   ? 1
                             : first < 0xc2 ? 0
                             : first < 0xe0 ? 2
                             : first < 0xf0 ? 3
                             : first < 0xf5 ? 4
                                            : 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const bool overlong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xf0 && byte(1) < 0x90);
  const bool surrogate = first == 0xed && byte(1) >= 0xa0, too_large = first == 0xf4 && byte(1) >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

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
  return phase.is_string() ? printable(phase.get<std::string>()) : "";
}

} // namespace

std::string printable(std::string_view bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size();) {
    const auto rest = bytes.substr(i);
    const auto c = static_cast<unsigned char>(rest[0]);
    if (c == 0x1b) {
      i += sequence_length(rest);
      continue;
    }
    const auto length = character_length(rest);
    const bool c1 = c == 0xc2 && length == 2 && static_cast<unsigned char>(rest[1]) < 0xa0;
    if (c == '\t')
      out += ' ';
    else if (length == 0)
      out += "\xef\xbf\xbd";
    else if (c >= 0x20 && c != 0x7f && !c1)
      out += rest.substr(0, length);
    i += std::max<std::size_t>(length, 1);
  }
  return out;
}

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
  auto text = printable(after_return(line_));
  if (text.find_first_not_of(' ') != text.npos) last_line_ = text;
  lines_bytes_ += text.size() + 1;
  lines_.push_back(std::move(text));
  while (lines_bytes_ > log_tail_bytes_max) {
    lines_bytes_ -= lines_.front().size() + 1;
    lines_.pop_front();
  }
}

std::string log_text::last_line() const {
  auto text = line_.starts_with(nix_prefix) ? "" : printable(after_return(line_));
  return text.find_first_not_of(' ') == text.npos ? last_line_ : text;
}

std::string log_text::tail() const {
  std::string text;
  for (const auto& line : lines_)
    text += line + "\n";
  if (!line_.starts_with(nix_prefix)) text += printable(after_return(line_));
  if (text.size() <= log_tail_bytes_max) return text;
  // whole lines only; one line alone is never that long
  return text.substr(text.find('\n', text.size() - log_tail_bytes_max - 1) + 1);
}

} // namespace coppice::actors
