#pragma once

#include "apps/coppice/client.hpp"
#include "apps/coppice/request.hpp"

#include <string>

/// The commands of `coppice`: each prints its facts on standard output and gives the exit code.
namespace coppice::app {

expected<int> build_command(client& c, const build_options& options, bool json);
expected<int> submit_command(client& c, const build_options& options, bool json);

/// Watches and waits alike; only what the client's console shows differs.
expected<int> watch_command(client& c, const request_id& id, bool json);

/// `id` empty: all that are open and the newest others.
expected<int> status_command(client& c, const request_id& id, bool json);

expected<int> cancel_command(client& c, const cancel_request& what, bool json);

/// `what` is a derivation, or an output of one.
expected<int> explain_command(client& c, const std::string& what, bool json);

struct log_options {
  std::string what; ///< a derivation, or "<inhash>-<fence>"
  bool follow = false;
  std::size_t lines = 0; ///< only so many last lines; 0: all
};
expected<int> log_command(client& c, const log_options& options, bool json);

} // namespace coppice::app
