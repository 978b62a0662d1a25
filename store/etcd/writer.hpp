#pragma once

#include "messages/ids.hpp"
#include "store/etcd/client.hpp"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

namespace coppice::store::etcd {

struct writer_options {
  std::string prefix;
  node_id node;
  bool shared = false; ///< other writers are let be
  std::chrono::seconds lease{10};
};

/// Writes guarded by a cell of its own, which each write changes: it tells whether a write without an answer happened,
/// and fences off an earlier process of this node and whoever lost the ledger to another. All but shared writers change
/// the same cell, so that as long as it is as this one left it nobody else has written anything. It has a lease, which
/// a thread keeps.
class writer {
public:
  /// `client` must outlive it. Throws ledger_io_error: `locked` if another node writes here, or as commit() fails.
  writer(writer_options o, client_options c, client& client);
  ~writer();

  enum class verdict : std::uint8_t { applied, conflict, no_space, too_large };
  struct written {
    writer::verdict verdict = verdict::conflict;
    std::int64_t revision = 0; ///< if applied
    std::string what;          ///< if etcd refused it
  };
  /// All puts, if all guards hold; tried until etcd says so or not, for client_options::patience at most. Without puts
  /// only the guards are looked at. Throws ledger_io_error: `unavailable`: nobody knows whether it happened; `locked`:
  /// another process has the ledger; `forbidden`.
  written commit(guarded_puts t);

  /// Throws what these failures are to the ledger: while it is opened, and later.
  [[noreturn]] static void fail_to_open(const failed& f, const std::string& prefix);
  [[noreturn]] static void fail(const failed& f, const std::string& what);

private:
  std::string cell() const;
  std::string value(std::uint64_t number) const;
  void claim();
  void renew();
  void keep_alive();
  /// Of a write whose guards did not hold: it had happened before, or the guards on rows failed, or (nullopt) the cell
  /// had to be made anew and it should be tried again.
  std::optional<written> look(std::uint64_t number);

  const writer_options options_;
  const std::chrono::milliseconds patience_;
  client& client_;
  std::string instance_;
  std::int64_t lease_ = 0;
  std::int64_t revision_ = 0; ///< of the cell
  std::uint64_t number_ = 0;  ///< in the cell

  std::unique_ptr<client> keeper_client_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::int64_t kept_lease_ = 0; ///< guarded by mutex_, as is stop_
  bool stop_ = false;
  std::thread keeper_;
};

} // namespace coppice::store::etcd
