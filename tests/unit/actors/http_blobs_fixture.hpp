#pragma once

#include "store/http_blob_store.hpp"
#include "tests/unit/actors/cache_server_fixture.hpp"

#include <atomic>

namespace coppice::test {

/// Another machine, which uses the store of a site over HTTP.
class member {
public:
  using change = std::function<void(store::http_blob_options&)>;
  explicit member(
      cache_site& at, const change& how = [](auto&) {}) {
    store::http_blob_options o;
    o.url = [&at]() -> expected<std::string> { return at.url; };
    o.ticket = [&at, this](bool refused) {
      ++(refused ? tickets_refused : tickets_first);
      return at.open(role::node);
    };
    o.scratch_dir = at.dir.path / "scratch";
    o.stop = &stop;
    o.limits.retry_delay = 10ms;
    how(o);
    blobs = store::open_http_blob_store(o).value();
  }
  store::blob_store* operator->() { return blobs.get(); }

  std::atomic<bool> stop{false};
  std::atomic<int> tickets_first{0}, tickets_refused{0};
  std::unique_ptr<store::blob_store> blobs;
};

/// A change by which the member reaches the site over there.
template <class Proxy>
member::change over(
    Proxy& proxy, const member::change& more = [](auto&) {}) {
  return [&proxy, more](store::http_blob_options& o) {
    o.url = [&proxy]() -> expected<std::string> { return proxy.url(); };
    more(o);
  };
}

} // namespace coppice::test
