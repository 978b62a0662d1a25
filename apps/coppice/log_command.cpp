#include "apps/common/evaluate.hpp"
#include "apps/common/report.hpp"
#include "apps/coppice/commands.hpp"
#include "apps/coppice/http.hpp"
#include "apps/coppice/parallel.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <charconv>
#include <iostream>
#include <thread>

namespace coppice::app {
namespace {

/// How often a log that grows is looked at.
constexpr std::chrono::milliseconds follow_pause{500};
/// With -n, this much of a log's end is held at most, or twice as much for a moment.
constexpr std::size_t tail_bytes_max = 4 << 20;
/// How long after an attempt that was nobody's fault the next one is waited for.
constexpr std::chrono::seconds next_attempt_patience{60};

/// "<inhash>-<fence>", or a derivation.
expected<find_log> parse_what(const std::string& what) {
  find_log query;
  const auto key = inhash::parse(std::string_view(what).substr(0, 64));
  if (key && what.size() > 65 && what[64] == '-') {
    query.key = *key;
    const auto* end = what.data() + what.size();
    const auto [at, bad] = std::from_chars(what.data() + 65, end, query.token.value);
    if (bad == std::errc{} && at == end) return query;
  }
  auto root = parse_root(what);
  if (!root)
    return fail(ec::invalid, fmt::format("'{}' is neither a derivation (/nix/store/….drv) nor an attempt "
                                         "(<inhash>-<token>, as 'coppice-admin attempts' has them)",
                                         what));
  query.drv = root->drv;
  return query;
}

/// Standard output, for the bytes of a log.
class log_output {
public:
  /// Shows only the last `lines` of what comes before the first flush(); 0: all.
  explicit log_output(std::size_t lines) : lines_(lines), terminal_(output_size().width > 0) {}

  expected<void> put(std::string_view bytes) {
    if (lines_ == 0) return write(bytes);
    held_ += bytes;
    if (held_.size() > 2 * tail_bytes_max) held_.erase(0, held_.size() - tail_bytes_max);
    return {};
  }
  expected<void> flush() {
    if (lines_ > 0) {
      if (auto done = write(last_of(held_)); !done) return done;
      held_ = {};
      lines_ = 0;
    }
    std::cout.flush();
    return std::cout ? expected<void>{} : fail(ec::io, "cannot write to standard output");
  }

  /// What comes next begins a line.
  expected<void> end_line() {
    if (last_ == '\n') return {};
    if (auto done = write("\n"); !done) return done;
    return flush();
  }
  bool to_terminal() const { return terminal_; }

private:
  std::string_view last_of(std::string_view text) const {
    auto start = text.ends_with('\n') ? text.size() - 1 : text.size();
    for (std::size_t i = 0; i < lines_; ++i) {
      start = start == 0 ? text.npos : text.rfind('\n', start - 1);
      if (start == text.npos) return text;
    }
    return text.substr(start + 1);
  }
  expected<void> write(std::string_view bytes) {
    if (!bytes.empty()) last_ = bytes.back();
    if (terminal_)
      std::cout << cleaner_.feed(bytes);
    else
      std::cout.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return std::cout ? expected<void>{} : fail(ec::io, "cannot write to standard output");
  }

  std::size_t lines_;
  bool terminal_;
  char last_ = '\n';
  std::string held_;
  line_cleaner cleaner_;
};

/// Follows one attempt after the other.
class log_follower {
public:
  log_follower(client& c, const log_options& options, find_log what, log_place place)
      : client_(c), options_(options), what_(std::move(what)), place_(std::move(place)), output_(options.lines) {}

  expected<int> run() {
    while (true) {
      // Asked before the last look, so that nothing written in between is missed.
      const bool over = place_.attempt.ended_ms.has_value();
      if (auto done = fetch_all(); !done) return tl::unexpected(done.error());
      if (!options_.follow) return exit_built;
      if (over) {
        auto next = next_attempt();
        if (!next) return tl::unexpected(next.error());
        if (!*next) return tell_end();
        continue;
      }
      std::this_thread::sleep_for(follow_pause);
      if (client_.interrupted()) return exit_cancelled;
      if (auto asked = ask_again(); !asked) return tl::unexpected(asked.error());
    }
  }

private:
  /// Of this attempt, not a newer one: what became of it, and where its log is by now.
  expected<void> ask_again() {
    auto place =
        client_.ask<log_place>("gateway", "log", find_log{std::nullopt, place_.attempt.key, place_.attempt.token});
    if (!place) return tl::unexpected(place.error());
    place_ = std::move(*place);
    return {};
  }

  expected<void> fetch() {
    expected<void> direct;
    if (!passed_on_) direct = fetch_from(place_.url);
    if (!passed_on_ && (direct || direct.error().code != ec::unavailable)) return direct;
    const auto here = url_at_node();
    if (!here) return tl::unexpected(here.error());
    if (!passed_on_ && *here == place_.url) return direct;
    passed_on_ = true;
    return fetch_from(*here);
  }

  /// A builder's machine may be out of our reach; the node that is asked passes its logs on.
  expected<std::string> url_at_node() {
    auto about = client_.ask<node_info>("gateway", "info", get_info{});
    if (!about) return tl::unexpected(about.error());
    const auto& attempt = place_.attempt;
    return fmt::format("{}/attempt/{}-{}", about->http, attempt.key.to_string(), attempt.token.value);
  }

  expected<void> fetch_from(const std::string& url) {
    http_session http(client_.interrupted());
    const auto print = [&](std::string_view bytes) {
      got_ += bytes.size();
      return output_.put(bytes);
    };
    auto reply = http.get(url, print, got_);
    if (!reply) return tl::unexpected(reply.error());
    const bool nothing_new = reply->status == 416;
    if (!reply->ok() && !nothing_new) return tl::unexpected(refusal_error(*reply, url));
    return {};
  }

  /// All there is now. A node that was started again may have its cache elsewhere.
  expected<void> fetch_all() {
    for (std::size_t tries = 1;; ++tries) {
      const auto before = got_;
      auto done = fetch();
      if (done) return output_.flush();
      if (got_ > before) tries = 1;
      if (done.error().code != ec::unavailable || tries >= transfer_tries_max) return done;
      std::this_thread::sleep_for(follow_pause);
      if (auto asked = ask_again(); !asked) return asked;
    }
  }

  /// True if a newer attempt at the derivation is followed from now on.
  expected<bool> next_attempt() {
    const auto ended = place_.attempt;
    if (!what_.drv || !is_transient(ended.result)) return false;
    if (auto done = output_.end_line(); !done) return tl::unexpected(done.error());
    client_.screen().note(fmt::format("coppice: this attempt ended: {}; waiting for the next one", reason_of(ended)));
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < next_attempt_patience) {
      auto place = client_.ask<log_place>("gateway", "log", what_);
      if (!place) return tl::unexpected(place.error());
      if (place->attempt.token != ended.token || place->attempt.key != ended.key) {
        place_ = std::move(*place);
        got_ = 0;
        return true;
      }
      std::this_thread::sleep_for(follow_pause);
      if (client_.interrupted()) return fail(ec::shutdown, "interrupted while waiting for the next attempt");
    }
    return false;
  }

  static std::string reason_of(const ledger::attempt_row& attempt) {
    return attempt.reason.empty() ? std::string(to_string(attempt.result)) : cleaned(attempt.reason);
  }

  expected<int> tell_end() {
    if (output_.to_terminal()) // elsewhere the log stays as it is, to the byte
      if (auto done = output_.end_line(); !done) return tl::unexpected(done.error());
    const auto& attempt = place_.attempt;
    const auto name = short_name(attempt.drv);
    const std::chrono::milliseconds took{attempt.ended_ms.value_or(attempt.started_ms) - attempt.started_ms};
    if (attempt.result == failure::none) {
      client_.screen().note(fmt::format("coppice: built {} ({})", name, duration_text(took)));
      return exit_built;
    }
    client_.screen().say(
        {fmt::format("coppice: {}: {} ({})", to_string(attempt.result), reason_of(attempt), duration_text(took))});
    return attempt.result == failure::cancelled ? exit_cancelled : exit_failed;
  }

  client& client_;
  const log_options& options_;
  find_log what_;
  log_place place_;
  log_output output_;
  std::uint64_t got_ = 0;  ///< bytes of this attempt's log
  bool passed_on_ = false; ///< by the node that is asked, since the builder's machine could not be reached
};

} // namespace

expected<int> log_command(client& c, const log_options& options, bool json) {
  auto query = parse_what(options.what);
  if (!query) return tl::unexpected(query.error());
  if (auto connected = c.connect(); !connected) return tl::unexpected(connected.error());
  auto place = c.ask<log_place>("gateway", "log", *query);
  if (!place) return tl::unexpected(place.error());
  if (json) {
    auto facts = attempt_json(place->attempt);
    facts["url"] = place->url;
    std::cout << json_text(facts) << '\n';
    return exit_built;
  }
  return log_follower(c, options, std::move(*query), std::move(*place)).run();
}

} // namespace coppice::app
