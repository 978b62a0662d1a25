#pragma once

#include "actors/settings.hpp"
#include "store/ledger.hpp"

#include <filesystem>
#include <functional>

namespace coppice::app {

/// What opens the ledger that the settings name: in etcd, or else in this file. `invalid` or `io` if the settings
/// cannot be right, `unsupported` if this program was built without etcd.
expected<std::function<std::unique_ptr<store::ledger_backend>()>> ledger_opener(const actors::ledger_settings& s,
                                                                                const node_id& node,
                                                                                const std::filesystem::path& file,
                                                                                const store::ledger_policy& policy);

} // namespace coppice::app
