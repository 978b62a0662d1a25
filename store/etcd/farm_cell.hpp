#pragma once

#include "runtime/curve.hpp"
#include "store/etcd/client.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace coppice::store::etcd {

/// What a hub is, wherever it runs: by what others know it, and whom it lets in. It holds secrets: whoever may read them
/// in etcd may as well write to the ledger.
struct farm_identity {
  node_id node;
  std::string secret_key;                     ///< CURVE, z85
  std::string signing_key;                    ///< of narinfos, "name:base64"
  std::vector<rt::authorized_key> authorized; ///< its allow-list
  std::uint64_t term = 0;                     ///< how often it was taken up; only ever rising
  COPPICE_STRUCT(farm_identity, 1, node, 2, secret_key, 3, signing_key, 4, authorized, 5, term)
};

/// The cell with the identity of a hub, beside its ledger. One thread at a time.
class farm_cell {
public:
  /// `invalid` or `io` if the options cannot be right.
  static expected<farm_cell> open(client_options o, const std::string& prefix);

  /// For who has the ledger open: the identity that is there, or `mine` if there is none yet, with a term of its own.
  /// `conflict` if it is that of a hub with another name; `unavailable` if etcd does not answer.
  expected<farm_identity> take_up(const farm_identity& mine);
  /// Replaces the allow-list. `conflict` if the identity was taken up elsewhere since.
  expected<void> authorize(std::vector<rt::authorized_key> keys);

private:
  farm_cell(std::unique_ptr<client> c, std::string cell) : client_(std::move(c)), cell_(std::move(cell)) {}
  /// `conflict` if the cell is not as it was read or written last, `unavailable` if etcd did not answer.
  expected<void> put(const farm_identity& next);

  std::unique_ptr<client> client_;
  std::string cell_;
  farm_identity known_;
  std::int64_t revision_ = 0; ///< of the cell, as last read or written
};

} // namespace coppice::store::etcd
