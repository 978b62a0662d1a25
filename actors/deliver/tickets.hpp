#pragma once

#include "messages/client.hpp"
#include "nix/hash.hpp"
#include "runtime/clock.hpp"

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace coppice::actors {

/// Secrets that let their bearers upload for a while. Any number of threads may ask.
class ticket_box {
public:
  /// At most `tickets_max` (at least 1) are kept: then the one that would end first is forgotten.
  ticket_box(std::chrono::nanoseconds ttl, std::size_t tickets_max) : ttl_(ttl), tickets_max_(tickets_max) {}

  /// A new secret for that caller.
  std::string issue(const caller& to, rt::boot_clock::time_point now);
  /// To whom it was issued; none if it is unknown or over.
  std::optional<caller> find(std::string_view ticket, rt::boot_clock::time_point now) const;

private:
  struct entry {
    rt::boot_clock::time_point ends;
    caller to;
  };
  const std::chrono::nanoseconds ttl_;
  const std::size_t tickets_max_;
  mutable std::mutex mutex_;
  std::map<nix::sha256_digest, entry> entries_; // by hash, so that the time of a look-up tells nothing of a secret
  std::multimap<rt::boot_clock::time_point, nix::sha256_digest> by_end_;
};

} // namespace coppice::actors
