#pragma once

#include "store/blob_store.hpp"

#include <functional>
#include <string>
#include <string_view>

namespace coppice::store {

/// Makes the store a binary cache for that store directory, by a nix-cache-info; `conflict` if there is one for
/// another. `put_new` puts a blob unless there is one, and says whether it did.
expected<void>
claim_blobs(blob_store& blobs, std::string_view store_dir,
            const std::function<expected<bool>(const std::string& key, std::string_view bytes)>& put_new);

} // namespace coppice::store
