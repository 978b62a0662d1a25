#pragma once

#include "messages/errors.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace coppice::app {

struct download_options {
  std::string ca_bundle;                      ///< PEM file of the authorities that HTTPS servers are checked by
  unsigned tries_max = 5;                     ///< in all, while there is hope
  std::chrono::milliseconds retry_first{250}; ///< before the second try; doubles
  std::chrono::seconds connect_timeout{60}, stall_timeout{300};
};

/// Downloads http, https, ftp and file URLs into `file`, over what is there; goes on where a broken transfer ended if
/// the server can. `say` is told of tries that failed. `not_found`, `forbidden` and `io`, with the URL, after the last.
expected<void> download(const std::string& url, const std::filesystem::path& file, const download_options& options,
                        const std::function<void(std::string_view)>& say);

} // namespace coppice::app
