#include "actors/build/fetch_work.hpp"

#include "store/compression.hpp"

#include <algorithm>
#include <set>

namespace coppice::actors {
namespace {

using word = fetch_report::word;

/// Passes the NAR of a blob from its byte `at` on to the sink.
expected<void> unpack(store::blob_store& blobs, const path_info& info, std::uint64_t& at, const store::byte_sink& out) {
  auto blob = blobs.open(store::nar_key(info.blob, info.gen));
  if (!blob) return tl::unexpected(blob.error());
  auto known = at; // has come from elsewhere
  const store::byte_sink rest = [&](std::string_view bytes) -> expected<void> {
    const auto skipped = std::min<std::uint64_t>(known, bytes.size());
    known -= skipped;
    bytes.remove_prefix(static_cast<std::size_t>(skipped));
    if (bytes.empty()) return {};
    auto taken = out(bytes);
    if (taken) at += bytes.size();
    return taken;
  };
  store::decompress_limits limits;
  limits.bytes_max = info.nar_size;
  store::decompressor inflate{rest, limits};
  std::vector<char> block(256 << 10);
  for (std::uint64_t offset = 0;;) {
    auto n = (*blob)->read(offset, block);
    if (!n) return tl::unexpected(n.error());
    if (*n == 0) return inflate.finish();
    offset += *n;
    if (auto done = inflate.write({block.data(), *n}); !done) return done;
  }
}

class fetching {
public:
  fetching(const fetch_means& means, const path_info& info) : means_(means), info_(info) {}

  fetch_report run(const std::vector<ledger::path_holder>& holders) {
    report_.done = pass(holders);
    if (!report_.done && !contributors_.empty() && (is_corrupt() || !refused_)) {
      if (is_corrupt())
        for (auto& node : contributors_)
          report_.holders.emplace_back(node, word::wrong);
      report_.done = pass({}); // by itself: what comes of it says whether the store has the path
    }
    if (is_corrupt()) report_.done = pass({}); // it may have been the reading
    if (!report_.done && (is_corrupt() || (report_.done.error().code == ec::missing && !refused_))) blame_store();
    return std::move(report_);
  }

private:
  bool is_corrupt() const { return !report_.done && report_.done.error().code == ec::corrupt; }

  /// The machines, and then the store: all have the same bytes, so each goes on where the one before it broke off.
  expected<void> pass(const std::vector<ledger::path_holder>& holders) {
    refused_ = false;
    contributors_.clear();
    return means_.local->add_from_nar(info_, [&](const store::byte_sink& out) {
      std::uint64_t at = 0;
      const store::byte_sink guarded = [&](std::string_view bytes) {
        auto taken = out(bytes);
        refused_ = refused_ || !taken;
        return taken;
      };
      for (auto& h : holders)
        if (auto done = from_holder(h, at, guarded); done || refused_) return done;
      const auto before = at;
      auto done = unpack(*means_.blobs, info_, at, guarded);
      report_.store_bytes += at - before;
      return done;
    });
  }

  expected<void> from_holder(const ledger::path_holder& h, std::uint64_t& at, const store::byte_sink& out) {
    const auto before = at;
    auto done = means_.held->fetch(h.url, info_, at, out);
    report_.held_bytes += at - before;
    if (at > before) contributors_.insert(h.node);
    if (done)
      report_.holders.emplace_back(h.node, word::served);
    else if (!refused_ && (done.error().code == ec::unavailable || done.error().code == ec::bad_message))
      report_.holders.emplace_back(h.node, word::failed);
    return done;
  }

  // Then what it still has of them is taken away, so that nobody is offered it: narinfos of what is not there are not
  // served.
  void blame_store() {
    const auto e = report_.done.error();
    const auto key = store::nar_key(info_.blob, info_.gen);
    if (e.code == ec::missing) {
      auto there = means_.blobs->stat(key);
      if (!there) return (void)(report_.done = tl::unexpected(there.error()));
      if (*there) return (void)(report_.done = fail(ec::io, e.what));
    }
    if (auto gone = means_.blobs->remove(key); !gone)
      return (void)(report_.done = fail(gone.error().code, e.what + "; " + gone.error().what));
    report_.lost = true;
  }

  const fetch_means& means_;
  const path_info& info_;
  fetch_report report_;
  std::set<node_id> contributors_; ///< of the bytes of the present pass, besides the store
  bool refused_ = false;           ///< our own store took no more of them
};

} // namespace

fetch_report fetch_path(const fetch_means& means, const path_info& info,
                        const std::vector<ledger::path_holder>& holders) {
  return fetching{means, info}.run(holders);
}

} // namespace coppice::actors
