#pragma once

#include "actors/settings.hpp"
#include "messages/errors.hpp"
#include "messages/ids.hpp"
#include "runtime/clock.hpp"

#include <map>
#include <vector>

namespace coppice::actors {

/// The arithmetic of leases (reliability.md 4.4). No safety depends on it, only economy.
struct lease_times {
  std::chrono::milliseconds lease_ttl{30'000};     ///< a session that is not renewed for so long is over
  std::chrono::milliseconds renew_interval{5'000}; ///< between keep-alives
  std::chrono::milliseconds guard{1'000};          ///< between the holder's stop and the lease's end
  double rate_error = 0.01;                        ///< by how much two machines' clocks may run apart
};

/// What the settings say; `invalid` with the reason if a keep-alive or two that are late would end builds: three
/// intervals, the guard and the time to stop a build must fit into the lease.
expected<lease_times> lease_times_of(const lease_settings& s, std::chrono::milliseconds kill_grace);

/// The holder's side: until when may builds go on?
class lease {
public:
  using time_point = rt::boot_clock::time_point;
  explicit lease(lease_times t) : times_(t) {}
  /// A keep-alive that was sent at `sent` was acknowledged.
  void on_acknowledged(time_point sent);
  /// Never later than sent + lease_ttl · (1 − ρ) − guard; the epoch of the clock if never acknowledged.
  time_point deadline() const { return deadline_; }
  bool valid(time_point now) const { return now < deadline_; }

private:
  lease_times times_;
  time_point deadline_{};
};

/// The ledger's side: whose lease is over? After a start every lease begins anew.
class lease_table {
public:
  using time_point = rt::boot_clock::time_point;
  explicit lease_table(lease_times t) : times_(t) {}
  /// A keep-alive or the opening of this session was heard at `now`.
  void renew(const session_id& session, time_point now) { heard_[session] = now; }
  /// Sessions whose lease is over; they are forgotten here. To be asked every renew_interval: if the last time was
  /// long ago, nobody could be heard, and every lease begins anew.
  std::vector<session_id> expired(time_point now);

private:
  lease_times times_;
  std::map<session_id, time_point> heard_;
  time_point looked_{};
};

} // namespace coppice::actors
