#include "actors/lock/lease.hpp"

#include <algorithm>

namespace coppice::actors {

expected<lease_times> lease_times_of(const lease_settings& s, std::chrono::milliseconds kill_grace) {
  const auto ms = [](std::chrono::milliseconds d) { return std::to_string(d.count()) + " ms"; };
  if (s.renew.count() < 1) return fail(ec::invalid, "lease.renew: there must be some time between two keep-alives");
  if (const auto least = 3 * s.renew + s.guard + kill_grace; s.ttl <= least)
    return fail(ec::invalid, "lease.ttl " + ms(s.ttl) + " is too short: it must be longer than three times lease.renew, "
                             "lease.guard and limits.kill_grace together, " + ms(least));
  lease_times t;
  t.lease_ttl = s.ttl;
  t.renew_interval = s.renew;
  t.guard = s.guard;
  return t;
}

void lease::on_acknowledged(time_point sent) {
  auto ttl = std::chrono::duration<double, std::milli>(times_.lease_ttl) * (1.0 - times_.rate_error);
  auto until = sent + std::chrono::duration_cast<std::chrono::milliseconds>(ttl) - times_.guard;
  deadline_ = std::max(deadline_, time_point{until});
}

std::vector<session_id> lease_table::expired(time_point now) {
  if (looked_ != time_point{} && now - looked_ > 2 * times_.renew_interval)
    for (auto& [id, heard] : heard_) heard = now; // the process or the machine stood still
  looked_ = now;
  std::vector<session_id> over;
  for (auto& [id, heard] : heard_)
    if (now - heard >= times_.lease_ttl) over.push_back(id);
  for (auto& id : over) heard_.erase(id);
  return over;
}

} // namespace coppice::actors
