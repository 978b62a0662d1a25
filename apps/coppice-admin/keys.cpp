#include "apps/common/report.hpp"
#include "apps/coppice-admin/commands.hpp"
#include "runtime/curve.hpp"
#include "runtime/settings.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <iostream>

namespace coppice::app {

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

expected<void> revoke_command(const std::string& name, const std::filesystem::path& state_dir, bool json) {
  const auto file = state_dir / "authorized.toml";
  const auto tried = [&](const error& e) { return error{e.code, fmt::format("cannot revoke {}: {}", name, e.what)}; };
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
