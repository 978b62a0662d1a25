#pragma once

#include "store/sinks.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace coppice::store {

struct zstd_options {
  int level = 3;
  /// Threads of libzstd that compress while the caller goes on, once there is enough to do; 0 compresses in the caller.
  int workers = 0;
};

/// Compresses a stream into one zstd frame.
class zstd_compressor {
public:
  explicit zstd_compressor(byte_sink out, const zstd_options& options = {});
  ~zstd_compressor();
  expected<void> write(std::string_view bytes);
  /// Ends the frame; called once, last.
  expected<void> finish();

private:
  expected<void> run(std::string_view bytes, bool end);
  struct free_context {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  byte_sink out_;
  int workers_;
  std::string held_; ///< the first bytes, until it is known whether workers are worth starting
  std::unique_ptr<ZSTD_CCtx_s, free_context> context_;
  std::string block_;
};

struct decompress_limits {
  int window_log_max = 27;                     ///< a frame that needs a larger window (2^27 bytes) is refused
  std::uint64_t bytes_max = UINT64_C(1) << 40; ///< of the result; more is `limit_exceeded`
};

/// Passes a stream on, decompressed if its first bytes are the magic of zstd or xz, else as it is.
class decompressor {
public:
  explicit decompressor(byte_sink out, const decompress_limits& limits = {});
  ~decompressor();
  /// `corrupt` for bytes that are not zstd or xz after all.
  expected<void> write(std::string_view bytes);
  /// `corrupt` if the stream ends within a frame; called once, last.
  expected<void> finish();

private:
  enum class kind : std::uint8_t { unknown, raw, zstd, xz };
  class xz_reader;
  expected<void> pass(std::string_view bytes);
  expected<void> inflate(std::string_view bytes);
  struct free_context {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  byte_sink out_;
  decompress_limits limits_;
  kind kind_ = kind::unknown;
  std::string head_;
  std::unique_ptr<ZSTD_DCtx_s, free_context> context_;
  std::unique_ptr<xz_reader> xz_;
  std::string block_;
  std::uint64_t bytes_out_ = 0;
  bool in_frame_ = false;
};

/// The bytes as one zstd frame.
expected<std::string> compress(std::string_view bytes, const zstd_options& options = {});
/// What decompressor makes of the bytes.
expected<std::string> decompress(std::string_view bytes, const decompress_limits& limits);

} // namespace coppice::store
