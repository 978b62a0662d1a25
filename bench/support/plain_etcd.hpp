#pragma once

#include <cstddef>
#include <string>

namespace coppice::bench {

/// Locks as etcd's own examples have them, each key for itself, over gRPC's asynchronous interface: acquire puts the
/// key if it does not exist, release deletes it if it is still the one that was put. Takes and gives back `keys` locks,
/// `rounds` times, all at once in flight on one connection; seconds that took.
double plain_etcd_locks(const std::string& endpoint, const std::string& prefix, std::size_t keys, std::size_t rounds);

} // namespace coppice::bench
