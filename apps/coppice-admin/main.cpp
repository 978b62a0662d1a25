#include "apps/coppice-admin/commands.hpp"

#include <iostream>
#include <map>

namespace {

using namespace coppice;
using namespace coppice::app;

struct command_line {
  farm_options farm;
  attempts_options attempts;
  std::size_t failures = 100;
  std::size_t locks = SIZE_MAX;
  std::string forget;
  kill_actor kill;
  queue_options queue;
  std::size_t requests = 20;
  std::string drain_why, drain_node, undrain_node;
  std::vector<std::string> tree_nodes;
  std::string gone, retry, drop, revoke;
  partial_fetch_options fetch;
  events_options events;
  keygen_options keygen;
  invite_options invite;
  bool watch = false;
};

/// Rows that -n can ask for: more than there ever are.
constexpr std::size_t rows_asked_max = 1'000'000'000;
const CLI::Range at_least_one(std::size_t{1}, rows_asked_max);

CLI::App* add_command(CLI::App& app, command_line& line, const std::string& name, const std::string& help,
                      const std::string& footer) {
  auto* command = app.add_subcommand(name, help);
  add_farm_options(*command, line.farm);
  command->footer(footer);
  return command;
}

int run(int argc, char** argv) {
  CLI::App app("coppice-admin: look into a node of a Coppice farm, and operate it.\n"
               "It finds the node on this machine by itself; --node and --key name another.");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "help of all commands");
  command_line line;

  auto* tree =
      add_command(app, line, "tree", "draw the tree of actors",
                  "Examples:\n  coppice-admin tree --watch\n  coppice-admin tree elm\n  coppice-admin tree --json | jq .children[].path");
  tree->add_option("NODE", line.tree_nodes, "only of these nodes; default: of all, the one that is asked first")->type_name("");
  tree->add_flag("-w,--watch", line.watch, "draw that of one node again every second, until Ctrl-C");
  auto* queue = add_command(app, line, "queue", "list what waits for a machine, in order, and why",
                            "Examples:\n  coppice-admin queue -n 20\n"
                            "  coppice-admin queue -n 100000 --json | jq -r .drv    # all of it, in pages\n"
                            "POS counts among what waits for the same kind of slot. Order: priority, then the number of\n"
                            "steps above it in its request (PATH), then age. A request places at most some thousands of\n"
                            "steps at a time; 'coppice explain DRV' tells of any step.");
  queue->add_option("-n,--limit", line.queue.count, "how many")
      ->type_name("N")
      ->check(at_least_one)
      ->capture_default_str();
  queue->add_option("--offset", line.queue.offset, "leave out the first ones")->type_name("N");
  auto* requests = add_command(app, line, "requests", "list the requests of all clients: all open ones, and the newest others",
                               "Examples:\n  coppice-admin requests -n 0      # only open ones\n"
                               "  coppice-admin requests --json | jq 'select(.state == \"open\") | .id'");
  requests->add_option("-n,--limit", line.requests, "how many that are over")
      ->type_name("N")
      ->check(CLI::Range(std::size_t{0}, rows_asked_max))
      ->capture_default_str();
  auto* nodes = add_command(app, line, "nodes", "list the machines: slots, systems, features, what is free, drained or not",
                            "Examples:\n  coppice-admin nodes\n"
                            "  coppice-admin nodes --json | jq 'select(.drained) | .node'\n"
                            "HEARD says how old the line is: machines repeat their offer every few seconds.");
  auto* drain = add_command(app, line, "drain", "have a machine finish what it runs and take nothing more",
                            "Examples:\n  coppice-admin drain --why 'new disks'\n  coppice-admin drain elm\n"
                            "  until [ \"$(coppice-admin locks --json | wc -l)\" = 0 ]; do sleep 5; done; reboot\n"
                            "It stays drained over restarts, until 'undrain'. What waits, waits.");
  drain->add_option("NODE", line.drain_node, "the machine; default: the one that is asked")->type_name("");
  drain->add_option("--why", line.drain_why, "for those who ask why nothing is built")->type_name("TEXT");
  auto* undrain = add_command(app, line, "undrain", "have a machine take work again", "Examples:\n  coppice-admin undrain\n  coppice-admin undrain elm");
  undrain->add_option("NODE", line.undrain_node, "the machine; default: the one that is asked")->type_name("");
  auto* gone = add_command(app, line, "gone", "say that the store has lost a path",
                           "Example:\n  coppice-admin gone /nix/store/0a1b…-hello-2.12\n"
                           "What is left of it in the binary cache is removed; nothing is answered with it any more. It is\n"
                           "built again when somebody needs it; a source must be submitted again.");
  gone->add_option("PATH", line.gone, "the store path")->required()->type_name("");
  auto* partial = app.add_subcommand("partial", "outputs that are built and not yet uploaded");
  partial->require_subcommand(1);
  partial->footer("Examples:\n  coppice-admin partial list\n  coppice-admin partial retry all");
  auto* partial_list = add_command(*partial, line, "list", "list them, and what their upload is doing",
                                           "Example:\n  coppice-admin partial list --json | jq -r .drv");
  auto* partial_retry = add_command(*partial, line, "retry", "upload now instead of after the pause",
                                            "Examples:\n  coppice-admin partial retry all\n"
                                            "  coppice-admin partial retry /nix/store/0a1b…-hello.drv");
  partial_retry->add_option("DRV", line.retry, "the derivation, or all")->required()->type_name("");
  auto* partial_drop = add_command(
      *partial, line, "drop", "give the built outputs up, so that the derivation is built again when somebody wants it",
      "Example:\n  coppice-admin partial drop /nix/store/0a1b…-hello.drv\n"
      "Only what is listed now is dropped: the token that the list shows must still be the one they are held under.");
  partial_drop->add_option("DRV", line.drop, "the derivation, or all")->required()->type_name("");
  auto* partial_fetch = add_command(*partial, line, "fetch", "copy such an output from the machine that keeps it",
                                    "Examples:\n  coppice-admin partial fetch /nix/store/0a1b…-hello-2.12\n"
                                    "  coppice-admin partial fetch /nix/store/0a1b…-hello-2.12 --out /tmp/hello\n"
                                    "It comes over HTTP from that machine, and is taken only if its hash is that of what was\n"
                                    "built. What it refers to does not come with it.");
  partial_fetch->add_option("PATH", line.fetch.path, "the store path; see 'partial list --json'")->required()->type_name("");
  partial_fetch->add_option("-o,--out", line.fetch.out, "the file or directory to make of it [its base name]")
      ->type_name("PATH");
  auto* attempts = add_command(
      app, line, "attempts", "list the attempts at builds, newest first",
      "Examples:\n  coppice-admin attempts -n 20\n  coppice-admin attempts --drv /nix/store/0a1b…-hello.drv --json");
  attempts->add_option("-n,--limit", line.attempts.count, "how many")
      ->type_name("N")
      ->check(at_least_one)
      ->capture_default_str();
  attempts->add_option("--drv", line.attempts.drv, "only attempts of this derivation")->type_name("DRV");
  auto* locks =
      add_command(app, line, "locks", "list the locks that are held", "Example:\n  coppice-admin locks --json");
  locks->add_option("-n,--limit", line.locks, "how many [all]")->type_name("N")->check(at_least_one);
  auto* failures = add_command(app, line, "failures", "list what failed and is not there, newest first",
                               "Examples:\n  coppice-admin failures\n  coppice-admin failures -n 100000 --json");
  failures->add_option("-n,--limit", line.failures, "how many")
      ->type_name("N")
      ->check(at_least_one)
      ->capture_default_str();
  auto* forget = add_command(app, line, "forget-failure", "let the next request try again what failed too often",
                             "Examples:\n  coppice-admin forget-failure /nix/store/0a1b…-hello.drv\n"
                             "  coppice-admin forget-failure all");
  forget->add_option("DRV", line.forget, "the derivation, or all")->required()->type_name("");
  auto* events =
      add_command(app, line, "events", "show what happened, a line for each event, oldest first",
                  "Examples:\n  coppice-admin events -f\n  coppice-admin events --json | jq 'select(.event==\"attempt_ended\")'\n"
                  "  coppice-admin events -f --json --epoch 1732312800000 --since 4711    # go on where a script was");
  events->add_flag("-f,--follow", line.events.follow, "the last ones, and go on: also when the node is started again");
  events->add_option("NODE", line.events.node, "of that node; default: of the one that is asked")->type_name("");
  events->add_option("--since", line.events.since, "only those numbered above N")->type_name("N");
  events->add_option("--epoch", line.events.epoch, "the numbering that N is of; if there is another one now, from its beginning")
      ->type_name("EPOCH");
  auto* kill = add_command(app, line, "kill", "end an actor, to rehearse: its supervisor starts it again",
                           "Examples:\n  coppice-admin kill /coord/gateway\n  coppice-admin kill /lock/ledger --crash");
  kill->add_option("PATH", line.kill.path, "the actor: the way to it in the tree, with or without the node's name")->required()->type_name("");
  kill->add_flag("--crash", line.kill.crash, "by an exception instead of an exit");
  auto* keygen =
      add_command(app, line, "keygen", "make a key for a client",
                  "Examples:\n  coppice-admin keygen alice --out alice.toml >>/var/lib/coppice/authorized.toml\n"
                  "  coppice build x.drv --node tcp://oak:5000 --key alice.toml      # as alice");
  const std::map<std::string, role> roles{
      {"observer", role::observer}, {"submitter", role::submitter}, {"admin", role::admin}};
  keygen->add_option("NAME", line.keygen.name, "whose key it is")->required()->type_name("");
  keygen
      ->add_option_function<std::string>(
          "--role", [&](const std::string& text) { line.keygen.role = roles.at(text); }, "what it may do [submitter]")
      ->check(CLI::IsMember({"observer", "submitter", "admin"}));
  keygen->add_option("-o,--out", line.keygen.out, "the key file to make, which must not exist [NAME.toml]")
      ->type_name("FILE");
  keygen
      ->add_option("--server-key", line.keygen.server_key,
                   "public key of the node; default: the state directory's node")
      ->type_name("KEY");
  auto* invite =
      add_command(app, line, "invite", "let a machine into the farm, and print its settings",
                  "Examples:\n  coppice-admin invite elm | ssh elm 'umask 077; cat >/etc/coppice/node.toml'\n"
                  "  coppice-admin invite elm --hub tcp://oak.example:5000\n"
                  "It makes a key of role node, enters it in authorized.toml in the state directory, and prints the secret\n"
                  "half; nothing else keeps it. What the machine shall build goes into the same file.");
  invite->add_option("NAME", line.invite.name, "the machine's name in the farm")->required()->type_name("");
  invite->add_option("--http", line.invite.http, "where others reach it for what it has built [they do not]")
      ->type_name("HOST:PORT");
  invite->add_option("--hub", line.invite.hub, "how the machine reaches this node [as it listens]")
      ->type_name("tcp://HOST:PORT");
  auto* revoke = add_command(app, line, "revoke", "let a key in no longer",
                             "Examples:\n  coppice-admin revoke alice\n"
                             "It works on authorized.toml in the state directory, on the node's own machine. Sessions of\n"
                             "the key end within a second; what its requests have begun goes on.");
  revoke->add_option("NAME", line.revoke, "whose keys")->required()->type_name("");
  app.footer("Exit codes: 0 done, 1 failed, 2 usage or bad input, 3 the farm could not be reached.");
  if (const int done = parse_command_line(app, argc, argv); done >= 0) return done;

  const bool json = line.farm.json;
  if (tree->parsed() && line.watch) {
    rt::signals signals;
    return watch_tree_command(line.farm, line.tree_nodes.empty() ? std::string() : line.tree_nodes.front(), signals, json);
  }
  const std::atomic<bool> never{false};
  const auto command = [&]() -> expected<void> {
    if (keygen->parsed()) return keygen_command(line.keygen, line.farm.state_dir, json);
    if (invite->parsed()) return invite_command(line.invite, line.farm.state_dir, json);
    if (revoke->parsed()) return revoke_command(line.revoke, line.farm.state_dir, json);
    auto found = farm::find(line.farm, never);
    if (!found) return tl::unexpected(found.error());
    if (tree->parsed()) return tree_command(*found, line.tree_nodes, json);
    if (queue->parsed()) return queue_command(*found, line.queue, json);
    if (requests->parsed()) return requests_command(*found, line.requests, json);
    if (nodes->parsed()) return nodes_command(*found, json);
    if (drain->parsed()) return drain_command(*found, {{line.drain_node}, true, line.drain_why}, json);
    if (undrain->parsed()) return drain_command(*found, {{line.undrain_node}, false, {}}, json);
    if (gone->parsed()) return gone_command(*found, line.gone, json);
    if (partial_list->parsed()) return partial_list_command(*found, json);
    if (partial_retry->parsed()) return partial_retry_command(*found, line.retry, json);
    if (partial_fetch->parsed()) return partial_fetch_command(*found, line.fetch, never, json);
    if (partial_drop->parsed()) return partial_drop_command(*found, line.drop, json);
    if (attempts->parsed()) return attempts_command(*found, line.attempts, json);
    if (locks->parsed()) return locks_command(*found, line.locks, json);
    if (events->parsed()) return events_command(*found, line.events, json);
    if (failures->parsed()) return failures_command(*found, line.failures, json);
    if (forget->parsed()) return forget_failure_command(*found, line.forget, json);
    return kill_command(*found, line.kill, json);
  };
  auto done = command();
  return done ? exit_built : complain("coppice-admin", done.error());
}

} // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "coppice-admin: " << e.what() << std::endl;
    return coppice::app::exit_failed;
  }
}
