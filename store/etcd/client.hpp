#pragma once

#include "messages/errors.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

/// What the ledger needs of etcd's API, version 3.
namespace coppice::store::etcd {

struct client_options {
  std::vector<std::string> endpoints; ///< "http://host:port" or "https://host:port", all of one scheme; asked in turn
  std::string ca;             ///< file with the certificates that https endpoints are checked with; empty: the system's
  std::string cert, key;      ///< files with this client's own certificate and key; empty: none
  std::string user, password; ///< empty: no log-in
  /// One try of one call: above an election (etcd's default: 1 s), below the 7 s for which a leaderless member is
  /// silent.
  std::chrono::milliseconds call_max{2'000};
  /// All tries of a call together; then it fails as `unavailable`. An election is over long before.
  std::chrono::milliseconds patience{10'000};
};

/// How a call ended that did not succeed.
enum class fault : std::uint8_t {
  unknown,   ///< no answer, or one that does not say whether it took effect
  no_space,  ///< etcd's quota is used up; it refuses whatever grows
  compacted, ///< the revision asked for is not kept any more
  denied,    ///< wrong credentials, or too few rights
  too_large, ///< more operations or bytes than etcd takes at once
  refused    ///< anything else that did not take effect
};
struct failed {
  etcd::fault fault = fault::unknown;
  std::string what; ///< what was tried where, and what etcd said
};
template <class T>
using result = tl::expected<T, failed>;

struct key_value {
  std::string key, value;
  std::int64_t revision = 0; ///< of its last change
};
struct page {
  std::vector<key_value> rows; ///< by key
  bool more = false;           ///< further ones follow behind the last
  std::int64_t revision = 0;   ///< of the whole store, when it was read
};
struct query {
  std::string begin, end;         ///< keys in [begin, end); end empty: the one key
  std::int64_t limit = 0;         ///< rows; 0: all
  std::int64_t revision = 0;      ///< as of this one; 0: now
  std::int64_t changed_since = 0; ///< only what changed in this revision or later
};
/// Puts everything if each compared key was last changed in that very revision (0: does not exist).
struct guarded_puts {
  struct guard {
    std::string key;
    std::int64_t revision = 0;
  };
  struct put {
    std::string key, value;
    std::int64_t lease = 0;
  };
  std::vector<guard> guards;
  std::vector<put> puts;
};
struct outcome {
  bool applied = false;
  std::int64_t revision = 0; ///< of the store; if applied, that of the puts
};

/// A connection to one cluster; one thread at a time. Each call is one try at one endpoint, or (`repeated`) as many as
/// `patience` allows; after a try without an answer the next endpoint is asked.
class client {
public:
  virtual ~client() = default;

  /// Linearizable. Repeated.
  virtual result<page> range(const query& q) = 0;
  /// One try: whoever hears `unknown` has to find out.
  virtual result<outcome> txn(const guarded_puts& t) = 0;
  /// Repeated. TTL in seconds; etcd may make it longer.
  virtual result<std::int64_t> grant_lease(std::int64_t ttl_s) = 0;
  /// One try. False: the lease is over.
  virtual result<bool> keep_lease(std::int64_t lease) = 0;
  /// One try.
  virtual result<void> revoke_lease(std::int64_t lease) = 0;
};

/// Connects when it is first used. `invalid` or `io` if the options cannot be right: no endpoint, a file that cannot be
/// read. `stop`, if given and once true, ends repeated calls.
expected<std::unique_ptr<client>> open_client(client_options o, const std::atomic<bool>* stop = nullptr);

/// The end of the range of all keys that begin with `prefix`, which must not be empty.
std::string prefix_end(std::string prefix);

} // namespace coppice::store::etcd
