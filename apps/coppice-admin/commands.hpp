#pragma once

#include "apps/common/farm.hpp"
#include "messages/admin.hpp"
#include "runtime/signals.hpp"

#include <optional>
#include <string>

/// The commands of `coppice-admin`: each prints its facts on standard output.
namespace coppice::app {

/// The actor of that name on that node; on the node that is asked, if it is empty.
inline std::string target_on(const std::string& node, const std::string& actor) {
  return node.empty() ? actor : node + "/" + actor;
}

/// Draws the actors of these nodes once; of all of the farm, the one that is asked first, if none is named. One that does
/// not answer is said so, and only if it was named is that an error.
expected<void> tree_command(farm& f, const std::vector<std::string>& nodes, bool json);

/// Draws those of one node (empty: the one that is asked) once a second until the program is interrupted, in place on a terminal; `stop` is the farm's. Gives the
/// exit code. `signals` must have been made first in main.
int watch_tree_command(const farm_options& options, const std::string& node, rt::signals& signals, bool json);

struct queue_options {
  std::size_t count = 100;
  std::size_t offset = 0;
};
/// Jobs that wait for a machine, most urgent first.
expected<void> queue_command(farm& f, const queue_options& options, bool json);

/// Open requests of all clients, and the newest `count` others.
expected<void> requests_command(farm& f, std::size_t count, bool json);

expected<void> nodes_command(farm& f, bool json);

expected<void> drain_command(farm& f, const drain_node& order, bool json);

/// `what` is a store path.
expected<void> gone_command(farm& f, const std::string& what, bool json);

expected<void> partial_list_command(farm& f, bool json);
/// `what` is a derivation, or "all".
expected<void> partial_retry_command(farm& f, const std::string& what, bool json);
expected<void> partial_drop_command(farm& f, const std::string& what, bool json);

struct partial_fetch_options {
  std::string path;          ///< of an output
  std::filesystem::path out; ///< what is made of it; empty: its base name, in the working directory
};
/// Fetches an output that is not uploaded from a machine that keeps it. `conflict` if there is something at `out`; else
/// an error says which machines were asked and what each of them answered.
expected<void> partial_fetch_command(farm& f, const partial_fetch_options& options, const std::atomic<bool>& stop, bool json);

struct attempts_options {
  std::size_t count = 1000;
  std::string drv; ///< only its attempts; empty: all
};
/// Newest first.
expected<void> attempts_command(farm& f, const attempts_options& options, bool json);

/// At most `count`.
expected<void> locks_command(farm& f, std::size_t count, bool json);

/// What failed and is not there; newest first, at most `count`.
expected<void> failures_command(farm& f, std::size_t count, bool json);

/// `what` is a derivation, or "all".
expected<void> forget_failure_command(farm& f, const std::string& what, bool json);

expected<void> kill_command(farm& f, const kill_actor& what, bool json);

struct events_options {
  bool follow = false;                ///< go on for ever
  std::optional<std::uint64_t> since; ///< only those numbered above
  std::string node;                   ///< whose; empty: of the one that is asked
  std::uint64_t epoch = 0;            ///< which numbering `since` is of; 0: the present one
};
/// Oldest first, a line for each; says so where some are lost, and where a new process of the node numbers them anew.
expected<void> events_command(farm& f, const events_options& options, bool json);

struct keygen_options {
  std::string name;
  coppice::role role = role::submitter;
  std::filesystem::path out; ///< empty: <name>.toml
  std::string server_key;    ///< empty: from the state directory
};
/// Makes a key file and prints the block that lets its holder in.
expected<void> keygen_command(const keygen_options& options, const std::filesystem::path& state_dir, bool json);

struct invite_options {
  std::string name;
  std::string hub;  ///< how the machine reaches this node; empty: as it listens
  std::string http; ///< "host:port" at which others are to reach it for what it has built; empty: they do not
};
/// Lets a new machine into the farm of the node that has its state there, and prints that machine's settings, which hold
/// its secret key. `conflict` if the name has a key.
expected<void> invite_command(const invite_options& options, const std::filesystem::path& state_dir, bool json);

/// Takes all keys of that name out of the allow-list; `not_found` if there is none.
expected<void> revoke_command(const std::string& name, const std::filesystem::path& state_dir, bool json);

} // namespace coppice::app
