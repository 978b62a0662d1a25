#pragma once

#include "actors/settings.hpp"
#include "apps/coppiced/state.hpp"
#include "store/ledger.hpp"

#include <filesystem>
#include <functional>
#include <memory>

namespace coppice::app {

using open_ledger = std::function<std::unique_ptr<store::ledger_backend>()>;

/// What opens the ledger that the settings name: in etcd, or else in this file. `invalid` or `io` if the settings
/// cannot be right, `unsupported` if this program was built without etcd.
expected<open_ledger> ledger_opener(const actors::ledger_settings& s, const node_id& node,
                                    const std::filesystem::path& file, const store::ledger_policy& policy);

/// What this process and others need to be the same hub in turn; `invalid`, `unavailable` or `conflict` if they cannot.
class shared_identity {
public:
  virtual ~shared_identity() = default;
  /// Gives the state directory the hub's keys and a new incarnation; at the first time ever, the hub gets the
  /// directory's. Only for who has the ledger open.
  virtual expected<void> take_up(state_dir& state) = 0;
  /// Whom the hub lets in from now on, wherever it runs. Any thread.
  virtual expected<void> authorize(const rt::authorized_keys& keys) = 0;
};
/// For ledgers in etcd.
expected<std::unique_ptr<shared_identity>> open_identity(const actors::ledger_settings& s);

} // namespace coppice::app
