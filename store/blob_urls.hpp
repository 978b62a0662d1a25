#pragma once

#include "messages/errors.hpp"

#include <chrono>
#include <string>

namespace coppice::store {

/// What some stores of blobs can do besides: have clients without credentials read from them.
class blob_urls {
public:
  virtual ~blob_urls() = default;
  /// A URL by which anybody may GET the blob for so long, whether or not it is there.
  virtual expected<std::string> url_of(const std::string& key, std::chrono::seconds valid) = 0;
};

} // namespace coppice::store
