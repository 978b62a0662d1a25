#include "apps/coppiced/node.hpp"

#include "apps/common/files.hpp"
#include "runtime/curve.hpp"
#include "runtime/log.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <iostream>

using namespace coppice;

namespace {

/// Exit codes of the daemon, as systemd and scripts see them (docs/operations.md).
enum exit_code { clean = 0, failed = 1, usage = 2, gave_up = 70, locked = 73 };

struct command_line {
  std::string config, state_dir, listen, http, node, log_level;
  std::vector<std::string> sandbox_paths;
  std::optional<std::uint32_t> max_jobs;
  bool ready_json = false;
};

int parse(CLI::App& app, command_line& c, int argc, char** argv) {
  app.description("coppiced: one node of a Coppice build farm. With no arguments: a solo node on loopback, its state in\n" +
                  app::default_state_dir().string() + ". Flags win over the configuration file.");
  app.add_option("--config", c.config, "configuration file (config/node.toml documents every key)")->type_name("FILE");
  app.add_option("--state-dir", c.state_dir, "where the node keeps everything that outlives it")->type_name("DIR");
  app.add_option("--listen", c.listen, "endpoint for clients; port 0 picks a free one")->type_name("tcp://HOST:PORT");
  app.add_option("--http", c.http, "address of the binary cache; port 0 picks a free one")->type_name("HOST:PORT");
  app.add_option("--node", c.node, "name of this machine in the farm")->type_name("NAME");
  app.add_option("--max-jobs", c.max_jobs, "builds at once; 0: one per CPU")->type_name("N");
  app.add_option("--sandbox-path", c.sandbox_paths, "host path that builds see read-only (repeatable): SRC, DST=SRC, "
                                                    "either with ? at its end if it may be missing")->type_name("PATH");
  app.add_option("--log-level", c.log_level, "debug, info, warn, error or off")->type_name("LEVEL");
  app.add_flag("--ready-json", c.ready_json, "print one line of JSON with the endpoints once it serves");
  app.set_version_flag("--version", std::string("coppiced ") + COPPICE_VERSION);
  app.footer("Examples:\n"
             "  coppiced --sandbox-path /usr --sandbox-path /bin --sandbox-path /lib --sandbox-path /lib64\n"
             "  coppiced --config /etc/coppice/node.toml --ready-json\n"
             "Exit codes: 0 stopped in order, 1 could not start, 2 usage, 70 the actor tree gave up,\n"
             "73 another coppiced serves from the state directory.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? -1 : usage;
  }
  return clean;
}

/// A hub that may run on several machines keeps nothing of the farm on any of them.
expected<void> check_takeover(const actors::node_settings& s, const std::string& config) {
  const auto wrong = [&](const char* why) { return fail(ec::invalid, config + ": [takeover] " + why); };
  if (!s.hub.empty()) return wrong("is for the hub of a farm, and this node has one elsewhere");
  if (s.node.empty()) return wrong("needs `node`, the name of the hub: the same on all its machines");
  if (s.node == s.takeover.machine) return wrong("machine is the hub's name: each machine has one of its own");
  if (s.ledger.etcd.empty()) return wrong("needs ledger.etcd: a ledger that outlives this machine");
  if (s.s3.bucket.empty()) return wrong("needs s3.bucket: a store that outlives this machine");
  if (s.http_url.empty()) return wrong("needs http_url: where others reach this machine's cache while the hub is here");
  if (s.takeover.endpoints.empty()) return wrong("needs endpoints: the hub's on each of its machines");
  for (const auto& endpoint : s.takeover.endpoints)
    if (!endpoint.starts_with("tcp://")) return wrong("endpoints are tcp://HOST:PORT");
  return {};
}

/// A member of a farm has all that its hub's invitation says; a node by itself has none of it.
expected<void> check_membership(const actors::node_settings& s, const std::string& config) {
  if (!s.takeover.machine.empty()) return check_takeover(s, config);
  if (s.hub.empty() && s.hub_node.empty() && s.hub_key.empty() && s.secret_key.empty()) return {};
  if (s.hub.empty() || s.hub_node.empty() || s.hub_key.empty() || s.secret_key.empty() || s.node.empty())
    return fail(ec::invalid, config + ": a member of a farm needs node, hub, hub_node, hub_key and secret_key, as "
                                      "'coppice-admin invite' on its hub prints them");
  if (!s.ledger.etcd.empty()) return fail(ec::invalid, config + ": ledger.etcd is for the hub; a member's ledger is its hub's");
  for (const auto& endpoint : s.hub)
    if (!endpoint.starts_with("tcp://")) return fail(ec::invalid, config + ": hub '" + endpoint + "' is not tcp://HOST:PORT");
  if (s.node == s.hub_node) return fail(ec::invalid, config + ": node and hub_node are the same machine");
  if (!rt::is_key(s.hub_key)) return fail(ec::invalid, config + ": hub_key is no key: 40 characters of z85");
  if (auto pair = rt::pair_of(s.secret_key); !pair) return fail(ec::invalid, config + ": " + pair.error().what);
  return rt::require_private(config);
}

expected<actors::node_settings> settings_of(const command_line& c) {
  actors::node_settings s;
  if (!c.config.empty()) {
    auto read = rt::read_settings<actors::node_settings>(c.config);
    if (!read) return tl::unexpected(read.error());
    s = std::move(*read);
    if (auto member = check_membership(s, c.config); !member) return tl::unexpected(member.error());
  }
  auto take = [](std::string& into, const std::string& from) {
    if (!from.empty()) into = from;
  };
  take(s.state_dir, c.state_dir);
  take(s.listen, c.listen);
  take(s.http, c.http);
  take(s.node, c.node);
  take(s.log_level, c.log_level);
  if (c.max_jobs) s.max_jobs = *c.max_jobs;
  s.sandbox_paths.insert(s.sandbox_paths.end(), c.sandbox_paths.begin(), c.sandbox_paths.end());
  if (s.state_dir.empty()) s.state_dir = app::default_state_dir().string();
  return s;
}

int run(const command_line& c) {
  auto complain = [](const error& e) {
    std::cerr << "coppiced: " << e.what << std::endl;
    return e.code == ec::shutdown ? clean : e.code == ec::locked ? locked : e.code == ec::invalid ? usage : failed;
  };
  auto settings = settings_of(c);
  if (!settings) return complain({ec::invalid, settings.error().what});
  app::node node{std::move(*settings)};
  auto ready = node.start();
  if (!ready) return complain(ready.error());
  if (c.ready_json)
    std::cout << nlohmann::json{{"listen", ready->listen}, {"http", ready->http}, {"public_key", ready->public_key},
                                {"node", ready->node}, {"pid", ready->pid}, {"state_dir", ready->state_dir}}
              << std::endl;
  if (node.serve()) return clean;
  // The tree is not to be trusted any more: nothing is ended in order. The kernel ends the builders (INV-11), and the
  // next start finds everything else in the ledger.
  rt::log::close();
  std::_Exit(gave_up);
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app;
  command_line c;
  if (int stop = parse(app, c, argc, argv); stop != clean) return stop < 0 ? clean : stop;
  try {
    return run(c);
  } catch (const std::exception& e) {
    std::cerr << "coppiced: " << e.what() << std::endl;
    return failed;
  }
}
