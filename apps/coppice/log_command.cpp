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
/// With -n, this much of a log's end is held at most.
constexpr std::size_t tail_bytes_max = 64 << 20;

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

/// The end of a stream, by lines.
class tail {
public:
  explicit tail(std::size_t lines) : lines_(lines) {}
  void add(std::string_view bytes) {
    held_ += bytes;
    if (held_.size() > 2 * tail_bytes_max) held_.erase(0, held_.size() - tail_bytes_max);
  }
  void print(std::ostream& out) const {
    for (const auto& line : last_lines(held_, lines_))
      out << line << '\n';
  }

private:
  std::size_t lines_;
  std::string held_;
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
  const find_log same{std::nullopt, place->attempt.key, place->attempt.token}; // not a newer attempt's
  std::uint64_t got = 0;
  std::optional<tail> end;
  if (options.lines > 0) end.emplace(options.lines);
  const auto fetch = [&]() -> expected<void> {
    http_session http(c.interrupted());
    const auto print = [&](std::string_view bytes) -> expected<void> {
      got += bytes.size();
      if (end) {
        end->add(bytes);
      } else if (!std::cout.write(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
        return fail(ec::io, "cannot write to standard output");
      }
      return {};
    };
    auto reply = http.get(place->url, print, got);
    if (!reply) return tl::unexpected(reply.error());
    const bool nothing_new = reply->status == 416;
    if (!reply->ok() && !nothing_new) return tl::unexpected(refusal_error(*reply, place->url));
    return {};
  };
  while (true) {
    // Asked before the last look, so that nothing written in between is missed.
    const bool over = place->attempt.ended_ms.has_value();
    if (auto done = with_retries(transfer_tries_max, fetch); !done) return tl::unexpected(done.error());
    if (end) end->print(std::cout);
    end.reset();
    std::cout.flush();
    if (!options.follow || over) return exit_built;
    std::this_thread::sleep_for(follow_pause);
    if (c.interrupted()) return exit_cancelled;
    place = c.ask<log_place>("gateway", "log", same);
    if (!place) return tl::unexpected(place.error());
  }
}

} // namespace coppice::app
