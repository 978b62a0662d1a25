#include "store/etcd/farm_cell.hpp"

#include "messages/wire.hpp"
#include "store/etcd/cells.hpp"

#include <algorithm>

namespace coppice::store::etcd {
namespace {

/// Of writes without an answer, or that met another's: only one has the ledger open, but an older one may not know yet
/// that it has not.
constexpr int tries_max = 8;

tl::unexpected<error> wrong(const failed& f, const std::string& what) {
  return fail(f.fault == fault::denied    ? ec::forbidden
              : f.fault == fault::unknown ? ec::unavailable
                                          : ec::io,
              "cannot " + what + ": " + f.what);
}

} // namespace

expected<farm_cell> farm_cell::open(client_options o, const std::string& prefix) {
  auto opened = open_client(std::move(o));
  if (!opened) return tl::unexpected(opened.error());
  return farm_cell{std::move(*opened), prefix + farm_identity_cell};
}

expected<void> farm_cell::put(const farm_identity& next) {
  const auto value = wire::encode(next);
  auto done = client_->txn({{{cell_, revision_}}, {{cell_, value}}});
  if (done && done->applied) {
    revision_ = done->revision;
    known_ = next;
    return {};
  }
  if (!done && done.error().fault != fault::unknown) return wrong(done.error(), "write " + cell_);
  auto found = client_->range({cell_, {}}); // it may have happened without our hearing of it
  if (!found) return wrong(found.error(), "find out what is in " + cell_);
  if (!found->rows.empty() && found->rows[0].value == value) {
    revision_ = found->rows[0].revision;
    known_ = next;
    return {};
  }
  if ((found->rows.empty() ? 0 : found->rows[0].revision) == revision_)
    return fail(ec::unavailable, "cannot write " + cell_ + ": " + (done ? "etcd went back" : done.error().what));
  return fail(ec::conflict, cell_ + " was changed by another machine");
}

expected<farm_identity> farm_cell::take_up(const farm_identity& mine) {
  for (int tries = 1;; ++tries) {
    auto found = client_->range({cell_, {}});
    if (!found) return wrong(found.error(), "read " + cell_);
    auto next = mine;
    revision_ = 0;
    if (!found->rows.empty()) {
      auto stored = wire::decode<farm_identity>(found->rows[0].value);
      if (!stored) return fail(ec::corrupt, cell_ + " in etcd: " + stored.error().what);
      if (stored->node != mine.node)
        return fail(ec::conflict, "the ledger in etcd is that of the hub " + stored->node.value + ", this one is " +
                                      mine.node.value + ": `node` is the same on all machines of one hub");
      revision_ = found->rows[0].revision;
      next = std::move(*stored);
    }
    next.term = std::max(next.term, mine.term) + 1;
    auto done = put(next);
    if (done) return next;
    const bool passes = done.error().code == ec::conflict || done.error().code == ec::unavailable;
    if (!passes || tries == tries_max) return tl::unexpected(done.error());
  }
}

expected<void> farm_cell::authorize(std::vector<rt::authorized_key> keys) {
  auto next = known_;
  next.authorized = std::move(keys);
  return put(next);
}

} // namespace coppice::store::etcd
