#include "apps/common/files.hpp"
#include "apps/coppice/commands.hpp"

#include <fmt/format.h>

#include <iostream>

namespace {

using namespace coppice;
using namespace coppice::app;

constexpr auto exit_codes =
    "Exit codes: 0 built, 1 a build failed, 2 usage or bad input, 3 the farm could not be reached, 4 cancelled.";

struct command_line {
  farm_options farm;
  build_options build;
  log_options log;
  std::string id, explain;
  bool let_finish = false;
  bool quiet = false;
};

void add_pairs(CLI::App& command, const std::string& name, std::vector<std::pair<std::string, std::string>>& into,
               const std::string& help, const std::string& type) {
  command
      .add_option_function<std::vector<std::string>>(
          name,
          [&into](const std::vector<std::string>& words) {
            into.clear();
            for (std::size_t i = 0; i + 1 < words.size(); i += 2)
              into.emplace_back(words[i], words[i + 1]);
          },
          help)
      ->type_size(2)
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->allow_extra_args(false)
      ->type_name("NAME " + type);
}

void add_build_options(CLI::App& command, command_line& line) {
  auto& o = line.build;
  command.add_option("FILE", o.what.files, "derivations (….drv, or ….drv!OUTPUT,…) or Nix expressions")
      ->required()
      ->type_name("");
  command.add_option("-A,--attr", o.what.attributes, "attribute of the expression (repeatable)")
      ->type_name("ATTR")
      ->allow_extra_args(false);
  add_pairs(command, "--arg", o.what.args, "argument of the expression's function, a Nix expression (repeatable)",
            "EXPR");
  add_pairs(command, "--argstr", o.what.arg_strs, "the same, a string (repeatable)", "STRING");
  command
      .add_option("--eval-store", o.eval_store_dir,
                  "directory that holds derivations and sources; default: where FILE lies")
      ->type_name("DIR");
  command.add_option("--priority", o.priority, "higher goes first, with all it needs [0]")->type_name("N");
  command.add_flag("--keep-going,-k", o.keep_going,
                   "a failure ends only what depends on it; without, nothing new is started after it, and what runs is "
                   "finished and kept");
  command.add_flag("--rebuild", o.rebuild,
                   "build FILE again although it is there, and fail if it comes out different; tries again what failed "
                   "too often");
  command
      .add_option_function<std::string>(
          "--on-disconnect",
          [&o](const std::string& text) {
            o.when_client_leaves = text == "cancel" ? on_disconnect::cancel : on_disconnect::proceed;
          },
          "what becomes of the request when this client leaves: cancel (what 'build' has) or continue (what 'submit' "
          "has)")
      ->check(CLI::IsMember({"cancel", "continue"}));
}

void add_common(CLI::App& command, command_line& line) {
  add_farm_options(command, line.farm);
  command.add_flag("-q,--quiet", line.quiet, "nothing but failures on standard error");
}

CLI::App* add_build(CLI::App& app, command_line& line) {
  auto* build = app.add_subcommand("build", "build, watch, fetch the outputs, make ./result");
  add_build_options(*build, line);
  auto& o = line.build;
  build->add_flag("--detach", o.detach, "print the request's id and return, like submit");
  build->add_option("-o,--out-link", o.link, "name of the link")->type_name("NAME")->capture_default_str();
  build->add_flag("--no-link", o.no_link, "make no link");
  build->add_flag("--no-fetch", o.no_fetch, "leave the outputs at the farm; makes no link either");
  build->add_option("--store", o.store, "directory for fetched outputs")->type_name("DIR")->capture_default_str();
  add_common(*build, line);
  build->footer(fmt::format("Examples:\n"
                            "  coppice build default.nix -A all            # what nix-build would do, on the farm\n"
                            "  coppice build release.nix --argstr system x86_64-linux --keep-going\n"
                            "  coppice build drvs/0a1b…-hello.drv --json   # no Nix needed; inputs lie beside it\n"
                            "Ctrl-C cancels the request and kills its builds (see --on-disconnect, and cancel --let-finish). Prints the built store paths.\n{}",
                            exit_codes));
  return build;
}

CLI::App* add_submit(CLI::App& app, command_line& line) {
  auto* submit = app.add_subcommand("submit", "like build, but print the request's id and return");
  add_build_options(*submit, line);
  add_common(*submit, line);
  submit->footer("Examples:\n"
                 "  id=$(coppice submit default.nix -A all) && coppice wait \"$id\"\n"
                 "  coppice submit nightly.nix --priority -10");
  return submit;
}

CLI::App* add_id_command(CLI::App& app, command_line& line, const std::string& name, const std::string& help,
                         const std::string& footer, bool required = true) {
  auto* command = app.add_subcommand(name, help);
  command->add_option("ID", line.id, "the request, as 'submit' and 'status' print it")
      ->required(required)
      ->type_name("");
  add_common(*command, line);
  command->footer(footer);
  return command;
}

CLI::App* add_log(CLI::App& app, command_line& line) {
  auto* log = app.add_subcommand("log", "print the log of a build");
  log->add_option("WHAT", line.log.what, "derivation (its newest attempt), or <inhash>-<token> (that attempt)")
      ->required()
      ->type_name("");
  auto* follow =
      log->add_flag("-f,--follow", line.log.follow, "go on until the build is over, and end with its result");
  auto* lines = log->add_option("-n,--lines", line.log.lines, "only the last lines (of the last 4 MB)")
                    ->type_name("LINES")
                    ->check(CLI::PositiveNumber);
  add_common(*log, line);
  log->get_option("--json")->excludes(follow)->excludes(lines); // it prints the attempt's facts, not its log
  log->footer("Examples:\n"
              "  coppice log /nix/store/0a1b…-hello.drv\n"
              "  coppice log 0a1b…-hello.drv -f -n 50\n"
              "On a terminal, control characters and escape sequences are left out. With -f: when an attempt at a\n"
              "derivation ends by no fault of its own, as by a restart, the next one is followed. " +
              std::string(exit_codes));
  return log;
}

CLI::App* add_explain(CLI::App& app, command_line& line) {
  auto* explain = app.add_subcommand("explain", "say why a derivation is not built yet");
  explain->add_option("PATH", line.explain, "a derivation, or an output of one")->required()->type_name("");
  add_common(*explain, line);
  explain->footer("Examples:\n"
                  "  coppice explain /nix/store/0a1b…-hello.drv\n"
                  "  coppice explain /nix/store/9x8y…-hello --json | jq .state\n"
                  "It tells what the farm's own schedulers know: the inputs that it waits for, who holds its lock, its\n"
                  "place in the queue and what is ahead, why each machine does not take it, when it is tried again, and\n"
                  "how former attempts ended. Exit codes: 0 explained, 2 usage, 3 the farm could not be reached.");
  return explain;
}

int with_id(client& c, const command_line& line, const std::function<expected<int>(const request_id&)>& command) {
  return c.run([&]() -> expected<int> {
    if (line.id.empty()) return command({});
    auto id = request_id::parse(line.id);
    if (!id) return tl::unexpected(id.error());
    return command(*id);
  });
}

int run(int argc, char** argv) {
  rt::signals signals;
  CLI::App app("coppice: have Nix derivations built by a Coppice farm.\n"
               "It finds the node on this machine by itself; --node and --key name another.");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "help of all commands");
  command_line line;
  line.build.store = default_client_store();
  const auto* build = add_build(app, line);
  const auto* submit = add_submit(app, line);
  const auto* status = add_id_command(app, line, "status", "show requests, or one of them",
                                      "Examples:\n  coppice status\n  coppice status 5f2c… --json", false);
  add_id_command(app, line, "watch", "show a request's progress until it is over",
                 "Example:\n  coppice watch 5f2c…\nCtrl-C leaves; the request goes on. " + std::string(exit_codes));
  const auto* wait = add_id_command(app, line, "wait", "wait silently until a request is over",
                                    "Example:\n  coppice wait 5f2c… && deploy\n" + std::string(exit_codes));
  auto* cancel = add_id_command(app, line, "cancel", "cancel a request: kill its builds that nobody else wants",
                                "Examples:\n  coppice cancel 5f2c…\n  coppice cancel --let-finish 5f2c…");
  cancel->add_flag("--let-finish", line.let_finish, "start nothing new; what runs is finished and kept");
  const auto* log = add_log(app, line);
  const auto* explain = add_explain(app, line);
  app.footer(fmt::format("Examples:\n  coppice build default.nix -A all\n  coppice status\n  coppice build --help\n{}",
                         exit_codes));
  if (const int done = parse_command_line(app, argc, argv); done >= 0) return done;

  client c(signals, line.farm, line.quiet || wait->parsed());
  const bool json = line.farm.json;
  if (build->parsed()) return c.run([&] { return build_command(c, line.build, json); });
  if (submit->parsed()) return c.run([&] { return submit_command(c, line.build, json); });
  if (explain->parsed()) return c.run([&] { return explain_command(c, line.explain, json); });
  if (log->parsed()) return c.run([&] { return log_command(c, line.log, json); });
  return with_id(c, line, [&](const request_id& id) {
    if (status->parsed()) return status_command(c, id, json);
    if (cancel->parsed()) return cancel_command(c, {id, line.let_finish}, json);
    return watch_command(c, id, json);
  });
}

} // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "coppice: " << e.what() << std::endl;
    return coppice::app::exit_failed;
  }
}
