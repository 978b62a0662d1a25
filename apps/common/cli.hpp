#pragma once

#include "messages/errors.hpp"

#include <CLI/CLI.hpp>

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

/// What `coppice` and `coppice-admin` have in common on the command line.
namespace coppice::app {

/// Exit codes of the clients, as scripts see them.
enum exit_code : int {
  exit_built = 0,
  exit_failed = 1,      ///< a build failed, or something on this machine did
  exit_usage = 2,       ///< what was asked for makes no sense
  exit_unreachable = 3, ///< no node answers, or none lets this key in
  exit_cancelled = 4
};

/// The exit code that an error ends a client with.
exit_code exit_code_of(const error& e);

/// How to find the farm.
struct farm_options {
  std::vector<std::string> nodes; ///< endpoints, tried in turn; empty: the node of the state directory
  std::string key_file;           ///< empty: the state directory's
  std::filesystem::path state_dir;
  std::chrono::seconds patience{60}; ///< how long a node that did answer may be away
  bool json = false;
};

/// Adds --node, --key, --state-dir, --patience and --json to a command.
void add_farm_options(CLI::App& command, farm_options& options);

/// Parses; gives the exit code if the program is done (help, version, an error that was printed), else -1.
int parse_command_line(CLI::App& app, int argc, char** argv);

/// "PROGRAM: what" on standard error; gives the exit code.
int complain(std::string_view program, const error& e);

} // namespace coppice::app
