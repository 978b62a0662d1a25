#include "apps/common/cli.hpp"

#include "apps/common/files.hpp"
#include "apps/common/text.hpp"

#include <fmt/format.h>

#include <iostream>

namespace coppice::app {

exit_code exit_code_of(const error& e) {
  switch (e.code) {
  case ec::bad_message: // one that the node refuses
  case ec::invalid:
  case ec::missing:
  case ec::not_found:
  case ec::conflict:
  case ec::unsupported:
  case ec::limit_exceeded: return exit_usage;
  case ec::unavailable:
  case ec::peer_down:
  case ec::deadline:
  case ec::overloaded:
  case ec::congested:
  case ec::restarted:
  case ec::no_such_target:
  case ec::forbidden: return exit_unreachable;
  case ec::shutdown: return exit_cancelled;
  default: return exit_failed;
  }
}

void add_farm_options(CLI::App& command, farm_options& o) {
  o.state_dir = default_state_dir();
  const auto group = "Farm";
  command
      .add_option("--node", o.nodes,
                  "endpoint of a node (repeatable: the next one is tried); default: the node on this machine")
      ->type_name("tcp://HOST:PORT")
      ->envname("COPPICE_NODE")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--key", o.key_file, "key file; default: the one of the state directory")
      ->type_name("FILE")
      ->envname("COPPICE_KEY")
      ->group(group);
  command.add_option("--state-dir", o.state_dir, "state directory of the node on this machine")
      ->type_name("DIR")
      ->envname("COPPICE_STATE_DIR")
      ->capture_default_str()
      ->group(group);
  command
      .add_option_function<unsigned>(
          "--patience", [&o](unsigned s) { o.patience = std::chrono::seconds{s}; }, "how long a node may be away [60]")
      ->type_name("SECONDS")
      ->group(group);
  command.add_flag("--json", o.json, "facts as JSON on standard output")->group(group);
}

int parse_command_line(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& e) {
    const auto unknown = app.remaining(true);
    if (unknown.empty() || unknown.front().starts_with('-')) return app.exit(e) == 0 ? exit_built : exit_usage;
    std::cerr << fmt::format("there is no command '{}'\nRun with --help for more information.", unknown.front())
              << std::endl;
    return exit_usage;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? exit_built : exit_usage;
  }
  return -1;
}

int complain(std::string_view program, const error& e) {
  std::cerr << program << ": " << e.what << std::endl;
  return exit_code_of(e);
}

} // namespace coppice::app
