#pragma once

#include "messages/errors.hpp"

#include <filesystem>

/// Where the programs keep their files.
namespace coppice::app {

/// Makes `link` a symbolic link to `target`, replacing a symbolic link that is there, and nothing else.
expected<void> replace_link(const std::filesystem::path& target, const std::filesystem::path& link);

/// Where a node keeps its state if nobody says otherwise: /var/lib/coppice for root, else $XDG_STATE_HOME/coppice or
/// ~/.local/state/coppice.
std::filesystem::path default_state_dir();

/// Where the client's private evaluation store is: below $XDG_CACHE_HOME/coppice or ~/.cache/coppice.
std::filesystem::path default_eval_root();

/// Where the client keeps fetched outputs: below $XDG_DATA_HOME/coppice or ~/.local/share/coppice.
std::filesystem::path default_client_store();

} // namespace coppice::app
