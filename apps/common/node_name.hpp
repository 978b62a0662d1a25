#pragma once

#include "messages/errors.hpp"

#include <string>

namespace coppice::app {

/// `invalid`, with the rule, for what cannot be the name of a node: 1 to 64 letters, digits, '-', '_' and '.'.
expected<void> check_node_name(const std::string& name);

} // namespace coppice::app
