#include "apps/common/farm.hpp"

#include "apps/common/text.hpp"
#include "runtime/settings.hpp"

#include <fmt/format.h>

#include <thread>

namespace coppice::app {
namespace {

bool may_help_to_repeat(ec code) {
  switch (code) {
  case ec::unavailable:
  case ec::peer_down:
  case ec::deadline:
  case ec::overloaded:
  case ec::congested:
  case ec::restarted:
  case ec::shutdown: return true; // the node's, not ours
  default: return false;
  }
}

} // namespace

expected<rt::credentials> farm::look() const {
  const auto own_key = options_.state_dir / "keys/client.toml";
  if (options_.nodes.empty() && options_.key_file.empty()) {
    auto found = rt::try_state_dir(options_.state_dir);
    if (found || found.error().code != ec::not_found) return found;
  } else if (options_.nodes.empty()) {
    auto where = rt::read_settings<rt::endpoint_file>(options_.state_dir / "endpoint.toml");
    if (!where && where.error().code != ec::not_found) return tl::unexpected(where.error());
    if (where) {
      auto key = rt::read_key_file(options_.key_file);
      if (!key) return tl::unexpected(key.error());
      return rt::credentials{rt::endpoints_of(*where), std::move(*key), options_.key_file};
    }
  }
  if (options_.nodes.empty())
    return fail(
        ec::unavailable,
        fmt::format("no node serves on this machine: there is no {}. Start one with 'coppiced --state-dir {}', or "
                    "name another with --node and --key",
                    (options_.state_dir / "endpoint.toml").string(), options_.state_dir.string()));
  rt::credentials found;
  found.key_path = options_.key_file.empty() ? own_key : std::filesystem::path(options_.key_file);
  auto key = rt::read_key_file(found.key_path);
  if (!key && key.error().code == ec::not_found)
    return fail(ec::unavailable,
                fmt::format("no key to talk to {} with: there is no {}. Give one with --key (an operator "
                            "makes one with 'coppice-admin keygen')",
                            options_.nodes.front(), found.key_path.string()));
  if (!key) return tl::unexpected(key.error());
  found.key = std::move(*key);
  for (const auto& node : options_.nodes)
    found.endpoints.push_back({node, ""});
  return found;
}

expected<farm> farm::find(const farm_options& options, const std::atomic<bool>& stop, away_observer away) {
  farm result(options, stop, std::move(away));
  auto found = result.look();
  if (!found) return tl::unexpected(found.error());
  result.credentials_ = std::move(*found);
  return result;
}

std::string farm::where() const {
  return credentials_.endpoints.front().address;
}

expected<void> farm::connect() {
  if (connection_) return {};
  // A node that was started again may listen elsewhere; one that is just starting has said nothing yet.
  if (auto found = look()) credentials_ = std::move(*found);
  auto made = rt::connection::connect(credentials_);
  if (!made) return tl::unexpected(made.error());
  connection_.emplace(std::move(*made));
  answered_ = true; // it is there; what it cannot do just now, it will
  return {};
}

expected<void> farm::before_repeat(const error& e, clock::time_point start, std::chrono::milliseconds pause) {
  if (!may_help_to_repeat(e.code)) return tl::unexpected(e);
  if (e.code == ec::peer_down || e.code == ec::deadline) connection_.reset();
  if (*stop_) return fail(ec::shutdown, fmt::format("interrupted while waiting for {}: {}", where(), e.what));
  const auto patience = answered_ ? options_.patience : std::min(options_.patience, patience_first);
  const auto waited = clock::now() - start;
  if (waited + pause > patience)
    return fail(ec::unavailable,
                fmt::format("{} (tried for {})", e.what,
                            duration_text(std::chrono::duration_cast<std::chrono::milliseconds>(waited))));
  if (away_) away_(where());
  std::this_thread::sleep_for(pause);
  return {};
}

} // namespace coppice::app
