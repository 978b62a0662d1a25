#include "actors/deliver/tickets.hpp"

#include "runtime/random.hpp"

namespace coppice::actors {

std::string ticket_box::issue(const caller& to, rt::boot_clock::time_point now) {
  auto secret = rt::random_secret();
  auto key = nix::sha256(secret);
  std::lock_guard lock{mutex_};
  while (!by_end_.empty() && (by_end_.begin()->first <= now || entries_.size() >= tickets_max_)) {
    entries_.erase(by_end_.begin()->second);
    by_end_.erase(by_end_.begin());
  }
  entries_[key] = {now + ttl_, to};
  by_end_.emplace(now + ttl_, key);
  return secret;
}

std::optional<caller> ticket_box::find(std::string_view ticket, rt::boot_clock::time_point now) const {
  auto key = nix::sha256(ticket);
  std::lock_guard lock{mutex_};
  auto it = entries_.find(key);
  if (it == entries_.end() || it->second.ends <= now) return std::nullopt;
  return it->second.to;
}

} // namespace coppice::actors
