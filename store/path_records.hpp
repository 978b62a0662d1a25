#pragma once

#include "messages/build.hpp"
#include "nix/narinfo.hpp"

namespace coppice::store {

/// The narinfo of a path whose blob lies in a blob_store; without signatures, which depend on the publisher's keys.
/// With no blob (an all-zero id) FileHash is left out.
nix::narinfo to_narinfo(const path_info& info);

/// The inverse; also of foreign narinfos, whose generation is then 0. `invalid` for a NAR hash that is not sha256.
expected<path_info> from_narinfo(const nix::narinfo& narinfo);

/// Changes a nix error into ours, which `code` classifies.
template <class T>
expected<T> with_code(nix::expected<T> result, ec code) {
  if (result) {
    if constexpr (std::is_void_v<T>)
      return {};
    else
      return std::move(*result);
  }
  return fail(code, std::move(result.error().what));
}

} // namespace coppice::store
