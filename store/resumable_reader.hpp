#pragma once

#include "store/blob_store.hpp"
#include "store/http_exchange.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace coppice::store {

/// How much a reader bears of a server that breaks off.
struct reading_bounds {
  unsigned cuts_max = 16;                     ///< times that the reading of one blob may break off and be resumed
  unsigned barren_max = 4;                    ///< of them, one after the other, that brought too little
  std::chrono::milliseconds retry_delay{200}; ///< before each, growing with the number of those
  http_patience patience;
};

/// A blob read over HTTP as one stream, resumed where it was cut if the blob is still the same, by its ETag.
class resumable_reader final : public blob_reader {
public:
  /// Asks for the blob once more, with these headers; the answer's head is here. Errors are of one that is not a 206.
  using ask_again = std::function<expected<std::unique_ptr<http_exchange>>(const std::vector<std::string>& headers)>;
  /// `stream` is the answer to a GET of the whole; `name` is for errors; `stop` outlives the reader.
  resumable_reader(std::string name, std::unique_ptr<http_exchange> stream, std::uint64_t size, ask_again again,
                   const reading_bounds& bounds, const std::atomic<bool>& stop);

  std::uint64_t size() const override { return size_; }
  std::string version() const override;
  expected<std::size_t> read(std::uint64_t offset, std::span<char> into) override;

private:
  expected<std::size_t> next(std::uint64_t from, std::span<char> into);
  expected<void> resume(std::uint64_t from);
  expected<void> bear(const error& e);

  const std::string name_;
  const ask_again again_; ///< may own what the stream uses
  std::unique_ptr<http_exchange> stream_;
  const std::uint64_t size_;
  const std::string version_; ///< as its ETag has it, in quotes
  const reading_bounds bounds_;
  const std::atomic<bool>& stop_;
  std::uint64_t at_ = 0; ///< where the stream is
  unsigned cuts_ = 0, barren_ = 0;
  std::uint64_t since_cut_ = 0;
};

} // namespace coppice::store
