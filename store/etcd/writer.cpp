#include "store/etcd/writer.hpp"

#include "runtime/random.hpp"
#include "store/etcd/cells.hpp"
#include "store/ledger.hpp"

namespace coppice::store::etcd {

namespace {

using clock = std::chrono::steady_clock;
constexpr auto retry_pause = std::chrono::milliseconds{20};
/// Leases that end between being taken and being used: a machine that stood still.
constexpr int claims_max = 5;

/// The first word of a cell's value, and the second.
std::string_view instance_in(std::string_view value) {
  return value.substr(0, value.find(' '));
}
std::string node_in(const std::string& value) {
  auto at = value.rfind(' ');
  return at == std::string::npos ? value : value.substr(at + 1);
}

} // namespace

void writer::fail_to_open(const failed& f, const std::string& prefix) {
  // without space it cannot be claimed, which passes as an outage does
  fail({f.fault == fault::no_space ? fault::unknown : f.fault, f.what}, "open the ledger under " + prefix + " in etcd");
}

void writer::fail(const failed& f, const std::string& what) {
  auto code = f.fault == fault::denied     ? ec::forbidden
              : f.fault == fault::no_space ? ec::storage_full
              : f.fault == fault::unknown  ? ec::unavailable
                                           : ec::io;
  throw ledger_io_error(code, "cannot " + what + ": " + f.what);
}

writer::writer(writer_options o, client_options c, client& client)
    : options_(std::move(o))
    , patience_(c.patience)
    , client_(client)
    , instance_(rt::random_id<session_id>().to_string()) {
  claim();
  auto own = open_client(c);
  if (!own) throw ledger_io_error(own.error().code, own.error().what);
  keeper_client_ = std::move(*own);
  keeper_ = std::thread([this] { keep_alive(); });
}

writer::~writer() {
  {
    std::lock_guard guard{mutex_};
    stop_ = true;
  }
  wake_.notify_all();
  keeper_.join();
  (void)client_.revoke_lease(lease_); // ignored: it ends by itself, and whoever comes next waits for that
}

std::string writer::cell() const {
  return options_.prefix + writer_cell + (options_.shared ? "/" + instance_ : "");
}

std::string writer::value(std::uint64_t number) const {
  return instance_ + " " + std::to_string(number) + " " + options_.node.value;
}

void writer::claim() {
  for (int tries = 0;; ++tries) {
    auto found = client_.range({cell(), {}});
    if (!found) fail_to_open(found.error(), options_.prefix);
    if (!found->rows.empty() && node_in(found->rows[0].value) != options_.node.value)
      throw ledger_io_error(ec::locked, "the ledger under " + options_.prefix + " in etcd is open at the node " +
                                            node_in(found->rows[0].value));
    revision_ = found->rows.empty() ? 0 : found->rows[0].revision;
    auto lease = client_.grant_lease(options_.lease.count());
    if (!lease) fail_to_open(lease.error(), options_.prefix);
    auto done = client_.txn({{{cell(), revision_}}, {{cell(), value(number_), *lease}}});
    if (done && done->applied) {
      lease_ = *lease;
      revision_ = done->revision;
      std::lock_guard guard{mutex_};
      kept_lease_ = lease_;
      return;
    }
    if (!done && done.error().fault != fault::unknown && done.error().fault != fault::refused)
      fail_to_open(done.error(), options_.prefix);
    if (tries >= claims_max)
      throw ledger_io_error(ec::unavailable, "cannot open the ledger under " + options_.prefix + ": " +
                                                 (done ? "others do so at the same time" : done.error().what));
    // it may have happened without our hearing of it: then the cell is ours already, and is taken over
  }
}

void writer::renew() {
  auto found = client_.range({cell(), {}});
  if (!found) fail(found.error(), "write to the ledger");
  if (!found->rows.empty() && instance_in(found->rows[0].value) != instance_)
    throw ledger_io_error(ec::locked, "the ledger under " + options_.prefix + " in etcd was taken over by the node " +
                                          node_in(found->rows[0].value));
  if (!options_.shared) // others may have come, and gone: what is known of the rows is worth nothing any more
    throw ledger_io_error(ec::unavailable, "the lease on the ledger under " + options_.prefix +
                                               " in etcd ran out, as etcd was away for long: it has to be read anew");
  claim();
}

std::optional<writer::written> writer::look(std::uint64_t number) {
  auto found = client_.range({cell(), {}});
  if (!found) fail(found.error(), "find out what was written to the ledger");
  if (!found->rows.empty() && found->rows[0].value == value(number)) {
    number_ = number;
    revision_ = found->rows[0].revision;
    return written{verdict::applied, revision_, {}};
  }
  if (!found->rows.empty() && found->rows[0].revision == revision_) return written{verdict::conflict, 0, {}};
  renew();
  return {};
}

writer::written writer::commit(guarded_puts t) {
  const bool writes = !t.puts.empty();
  const auto number = number_ + 1;
  const auto until = clock::now() + patience_;
  const auto guards = t.guards.size(), puts = t.puts.size();
  for (;;) {
    t.guards.resize(guards);
    t.puts.resize(puts);
    t.guards.push_back({cell(), revision_});
    if (writes) t.puts.push_back({cell(), value(number), lease_});
    auto done = client_.txn(t);
    if (done && done->applied) {
      if (writes) number_ = number, revision_ = done->revision;
      return {verdict::applied, done->revision, {}};
    }
    if (done) {
      if (auto seen = look(number)) return *seen;
      continue;
    }
    auto& failure = done.error();
    if (failure.fault == fault::no_space) return {verdict::no_space, 0, failure.what};
    if (failure.fault == fault::too_large) return {verdict::too_large, 0, failure.what};
    if (failure.fault == fault::refused && failure.what.find("lease not found") != std::string::npos) {
      renew();
      continue;
    }
    if (failure.fault != fault::unknown || clock::now() >= until) fail(failure, "write to the ledger");
    std::this_thread::sleep_for(retry_pause);
  }
}

void writer::keep_alive() {
  std::unique_lock guard{mutex_};
  while (!wake_.wait_for(guard, options_.lease / 3, [&] { return stop_; })) {
    auto lease = kept_lease_;
    guard.unlock();
    (void)keeper_client_->keep_lease(lease); // ignored: the next write finds out if it is over
    guard.lock();
  }
}

} // namespace coppice::store::etcd
