#include "apps/coppice-admin/commands.hpp"

#include "apps/common/node_name.hpp"
#include "apps/common/report.hpp"
#include "runtime/call.hpp"
#include "runtime/curve.hpp"
#include "runtime/settings.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <iostream>

namespace coppice::app {
namespace {

/// "tcp://host:port" taken apart; nothing for anything else.
std::optional<std::string> host_of(const std::string& endpoint) {
  const std::string_view scheme = "tcp://";
  const auto colon = endpoint.rfind(':');
  if (!endpoint.starts_with(scheme) || colon <= scheme.size()) return {};
  std::uint16_t port = 0;
  const auto* end = endpoint.data() + endpoint.size();
  const auto [at, wrong] = std::from_chars(endpoint.data() + colon + 1, end, port);
  if (wrong != std::errc{} || at != end || port == 0) return {};
  return endpoint.substr(scheme.size(), colon - scheme.size());
}

/// Whether an address to listen on is one that other machines connect to.
bool is_for_others(const std::string& host) {
  for (const auto* other : {"0.0.0.0", "*", "[::]", "[::1]", "localhost"})
    if (host == other) return false;
  return !host.starts_with("127.");
}

/// The settings by which a machine serves what it has built; comments if it is not known where.
expected<std::string> http_lines(const invite_options& options) {
  if (options.http.empty())
    return fmt::format("# Others fetch what it has built from the farm's store, unless it says where they reach it:\n"
                       "# http = \"0.0.0.0:8080\"\n# http_url = \"http://{}:8080\"\n",
                       options.name);
  const auto endpoint = "tcp://" + options.http;
  if (!host_of(endpoint)) return fail(ec::invalid, fmt::format("'{}' is no address: HOST:PORT", options.http));
  return fmt::format("http = {}\nhttp_url = {}\n", rt::toml_quoted("0.0.0.0" + options.http.substr(options.http.rfind(':'))),
                     rt::toml_quoted("http://" + options.http));
}

/// A hub that may run on several machines is told of keys where it runs.
expected<void> runs_here(const std::filesystem::path& state_dir) {
  if (!std::filesystem::exists(state_dir / rt::stands_by_file)) return {};
  return fail(ec::unavailable, fmt::format("the hub runs on another machine now, and the coppiced of {} stands by: keys are "
                                           "let in and revoked where the hub runs",
                                           state_dir.string()));
}

/// How other machines reach the node, wherever it may be.
expected<std::vector<std::string>> endpoints_for_others(const std::string& given, const std::filesystem::path& state_dir) {
  if (!given.empty()) {
    if (host_of(given)) return std::vector{given};
    return fail(ec::invalid, fmt::format("'{}' is no endpoint: tcp://HOST:PORT", given));
  }
  auto serves = rt::read_settings<rt::endpoint_file>(state_dir / "endpoint.toml");
  if (!serves)
    return fail(serves.error().code,
                fmt::format("it is not known where the node listens: {}. Start it, or say with --hub "
                            "how others reach it",
                            serves.error().what));
  if (!serves->elsewhere.empty()) return serves->elsewhere;
  const auto host = host_of(serves->listen);
  if (host && is_for_others(*host)) return std::vector{serves->listen};
  return fail(ec::invalid, fmt::format("the node listens on {}, which is no address for other machines: give it one by "
                                       "`listen` in its settings, or say with --hub how they reach it",
                                       serves->listen));
}

} // namespace

expected<void> keygen_command(const keygen_options& options, const std::filesystem::path& state_dir, bool json) {
  auto server_key = options.server_key;
  if (server_key.empty()) {
    auto node = rt::read_key_file(state_dir / "keys/node.toml");
    if (!node)
      return fail(node.error().code,
                  fmt::format("the public key of the node that {} shall talk to is not known: {}. Give it with "
                              "--server-key (it is server_key in {})",
                              options.name, node.error().what, (state_dir / "endpoint.toml").string()));
    server_key = node->public_key;
  }
  if (!rt::is_key(server_key))
    return fail(ec::invalid, fmt::format("'{}' is no CURVE key: 40 characters of z85", server_key));
  if (options.name.empty() || options.name.size() > rt::key_name_bytes_max)
    return fail(ec::invalid, fmt::format("a key's name has 1 to {} bytes", rt::key_name_bytes_max));
  const auto pair = rt::make_keys();
  const auto out = options.out.empty() ? std::filesystem::path(options.name + ".toml") : options.out;
  auto written = rt::write_key_file(out, {options.name, options.role, pair.public_key, pair.secret_key, server_key});
  if (!written) return written;
  const auto role = to_string(options.role);
  if (json) {
    std::cout << json_text(
                     {{"name", options.name}, {"role", role}, {"public_key", pair.public_key}, {"file", out.string()}})
              << std::endl;
    return {};
  }
  std::cerr << fmt::format("Wrote {}; it is secret. To let its holder in, append this to the node's {}:\n",
                           out.string(), (state_dir / "authorized.toml").string());
  std::cout << fmt::format("[[key]]\nname = {}\nrole = \"{}\"\npublic_key = {}\n", rt::toml_quoted(options.name), role,
                           rt::toml_quoted(pair.public_key))
            << std::flush;
  return {};
}

expected<void> invite_command(const invite_options& options, const std::filesystem::path& state_dir, bool json) {
  const auto tried = [&](const error& e) {
    return tl::unexpected(error{e.code, fmt::format("cannot invite {}: {}", options.name, e.what)});
  };
  if (auto good = check_node_name(options.name); !good) return good;
  const auto own = rt::read_key_file(state_dir / "keys/node.toml");
  if (!own) return tried(own.error());
  if (auto here = runs_here(state_dir); !here) return tried(here.error());
  const auto hub = endpoints_for_others(options.hub, state_dir);
  if (!hub) return tried(hub.error());
  const auto http = http_lines(options);
  if (!http) return tried(http.error());
  const auto pair = rt::make_keys();
  const auto let_in =
      rt::edit_authorized(state_dir / "authorized.toml", [&](rt::authorized_keys& keys) -> expected<void> {
        const auto is_it = [&](const auto& key) { return key.name == options.name; };
        if (options.name == own->name || std::any_of(keys.key.begin(), keys.key.end(), is_it))
          return fail(ec::conflict,
                      fmt::format("the name is taken; 'coppice-admin revoke {}' takes its keys out", options.name));
        keys.key.push_back({options.name, role::node, pair.public_key});
        return {};
      });
  if (!let_in) return tried(let_in.error());
  if (json)
    std::cout << json_text({{"node", options.name},
                            {"hub", hub->front()},
                            {"hubs", *hub},
                            {"hub_node", own->name},
                            {"hub_key", own->public_key},
                            {"secret_key", pair.secret_key},
                            {"http", options.http}})
              << std::endl;
  else
    std::cout << fmt::format("# Settings of {} in the farm of {}. They hold its secret key: chmod 600.\n"
                             "node = {}\nhub = {}\nhub_node = {}\nhub_key = {}\nsecret_key = {}\n{}",
                             options.name, own->name, rt::toml_quoted(options.name),
                             hub->size() == 1 ? rt::toml_quoted(hub->front()) : rt::toml_quoted(*hub), rt::toml_quoted(own->name),
                             rt::toml_quoted(own->public_key), rt::toml_quoted(pair.secret_key), *http)
              << std::flush;
  if (!std::cout) return tried({ec::io, "standard output is closed; revoke it, and try again"});
  return {};
}

expected<void> revoke_command(const std::string& name, const std::filesystem::path& state_dir, bool json) {
  const auto file = state_dir / "authorized.toml";
  const auto tried = [&](const error& e) { return error{e.code, fmt::format("cannot revoke {}: {}", name, e.what)}; };
  if (auto here = runs_here(state_dir); !here) return here.map_error(tried);
  std::size_t removed = 0;
  auto done = rt::edit_authorized(file, [&](rt::authorized_keys& keys) -> expected<void> {
    removed = std::erase_if(keys.key, [&](const auto& key) { return key.name == name; });
    if (removed == 0) return fail(ec::not_found, fmt::format("{} has no key of that name", file.string()));
    return {};
  });
  if (!done) return done.map_error(tried);
  if (json)
    std::cout << json_text({{"revoked", name}, {"keys", removed}}) << std::endl;
  else
    std::cout << fmt::format("revoked: {}", name) << std::endl;
  return {};
}

} // namespace coppice::app
