#include "apps/coppiced/ledger.hpp"

#include "runtime/curve.hpp"
#include "store/files.hpp"

#ifdef COPPICE_ETCD
#include "store/etcd/farm_cell.hpp"
#include "store/etcd_ledger.hpp"

#include <mutex>
#endif

namespace coppice::app {

namespace {

#ifdef COPPICE_ETCD
constexpr std::uint64_t password_bytes_max = 4096;

expected<std::string> read_password(const std::string& file) {
  if (auto closed = rt::require_private(file); !closed) return tl::unexpected(closed.error());
  auto text = store::read_file(file, password_bytes_max);
  if (!text) return text;
  while (text->ends_with('\n') || text->ends_with('\r'))
    text->pop_back();
  if (text->empty()) return fail(ec::invalid, file + " is empty: it must hold the password for etcd");
  return text;
}

expected<store::etcd_ledger_options> etcd_options(const actors::ledger_settings& s, const node_id& node) {
  store::etcd_ledger_options o;
  o.node = node;
  o.prefix = s.etcd_prefix;
  o.client = {s.etcd, s.etcd_ca, s.etcd_cert, s.etcd_key, s.etcd_user, {}};
  if (s.etcd_lease.count() < 1) return fail(ec::invalid, "ledger.etcd_lease: at least 1 s");
  o.lease = s.etcd_lease;
  if (o.prefix.empty()) return fail(ec::invalid, "ledger.etcd_prefix is empty: the ledger's keys need a prefix");
  if (s.etcd_user.empty() != s.etcd_password_file.empty())
    return fail(ec::invalid, "ledger.etcd_user and ledger.etcd_password_file go together");
  if (!s.etcd_user.empty()) {
    auto password = read_password(s.etcd_password_file);
    if (!password) return fail(password.error().code, "ledger.etcd_password_file: " + password.error().what);
    o.client.password = std::move(*password);
  }
  return o;
}

class identity_in_etcd final : public shared_identity {
public:
  explicit identity_in_etcd(store::etcd::farm_cell cell) : cell_(std::move(cell)) {}
  expected<void> take_up(state_dir& state) override {
    auto own = state.hub_keys();
    if (!own) return tl::unexpected(own.error());
    auto taken = cell_.take_up({{state.node_name()}, own->secret_key, own->signing_key, own->authorized.key, state.born().value});
    if (!taken) return tl::unexpected(taken.error());
    return state.adopt({taken->secret_key, taken->signing_key, {taken->authorized}}, {taken->term});
  }
  expected<void> authorize(const rt::authorized_keys& keys) override {
    std::lock_guard alone{mutex_}; // a restarted KEY_KEEPER does not wait for what the one before began
    return cell_.authorize(keys.key);
  }

private:
  std::mutex mutex_;
  store::etcd::farm_cell cell_;
};
#endif

} // namespace

expected<open_ledger> ledger_opener(const actors::ledger_settings& s, const node_id& node,
                                    const std::filesystem::path& file, const store::ledger_policy& policy) {
  if (s.etcd.empty()) {
    if (!(s.etcd_ca + s.etcd_cert + s.etcd_key + s.etcd_user + s.etcd_password_file).empty())
      return fail(ec::invalid, "ledger.etcd is empty, but it is said how to reach it");
    return [file, policy] { return store::open_sqlite_ledger(file, policy); };
  }
#ifdef COPPICE_ETCD
  auto o = etcd_options(s, node);
  if (!o) return tl::unexpected(o.error());
  o->last_change = std::make_shared<std::atomic<std::int64_t>>(0);
  // Opened here and now, so that whatever is wrong is told at once; the first LEDGER gets it.
  auto first = std::make_shared<std::unique_ptr<store::ledger_backend>>();
  try {
    *first = store::open_etcd_ledger(*o, policy);
  } catch (const store::ledger_io_error& e) {
    // unlike a state directory, it may be free soon: it is worth trying again
    return fail(e.code() == ec::locked ? ec::unavailable : e.code(), e.what());
  }
  return [first, o = std::move(*o), policy] { return *first ? std::move(*first) : store::open_etcd_ledger(o, policy); };
#else
  (void)node;
  return fail(ec::unsupported, "ledger.etcd is set, but this coppiced was built without etcd (COPPICE_ETCD)");
#endif
}

expected<std::unique_ptr<shared_identity>> open_identity(const actors::ledger_settings& s) {
#ifdef COPPICE_ETCD
  auto o = etcd_options(s, {});
  if (!o) return tl::unexpected(o.error());
  auto cell = store::etcd::farm_cell::open(o->client, o->prefix);
  if (!cell) return tl::unexpected(cell.error());
  return std::make_unique<identity_in_etcd>(std::move(*cell));
#else
  (void)s;
  return fail(ec::unsupported, "[takeover] needs a ledger in etcd, and this coppiced was built without (COPPICE_ETCD)");
#endif
}

} // namespace coppice::app
