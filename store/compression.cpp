#include "store/compression.hpp"

#include <lzma.h>
#include <zstd.h>

#include <algorithm>
#include <new>
#include <utility>

namespace coppice::store {

namespace {

constexpr std::string_view zstd_magic = "\x28\xb5\x2f\xfd";
constexpr std::string_view xz_magic{"\xfd" "7zXZ\0", 6};
/// Memory of an xz decoder beside its window.
constexpr std::uint64_t xz_overhead_bytes = 1 << 20;
constexpr std::size_t xz_block_bytes = 256 << 10;

/// Starting a thread and its buffers costs more than compressing less than this.
constexpr std::size_t workers_from_bytes = 4 << 20;
constexpr std::uint64_t reserved_max = 1 << 30, reserved_per_byte = 16;

tl::unexpected<error> zstd_failed(std::string_view tried, std::size_t code) {
  return fail(ec::corrupt, "cannot " + std::string{tried} + ": " + ZSTD_getErrorName(code));
}

} // namespace

void zstd_compressor::free_context::operator()(ZSTD_CCtx_s* context) const {
  ZSTD_freeCCtx(context);
}

void decompressor::free_context::operator()(ZSTD_DCtx_s* context) const {
  ZSTD_freeDCtx(context);
}

zstd_compressor::zstd_compressor(byte_sink out, const zstd_options& options)
    : out_(std::move(out))
    , workers_(options.workers)
    , context_(ZSTD_createCCtx())
    , block_(ZSTD_CStreamOutSize(), '\0') {
  if (!context_) throw std::bad_alloc{};
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, options.level); // clamped by zstd, cannot fail
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
}

zstd_compressor::~zstd_compressor() = default;

expected<void> zstd_compressor::write(std::string_view bytes) {
  if (workers_ == 0) return run(bytes, false);
  held_ += bytes;
  if (held_.size() < workers_from_bytes) return {};
  // ignored: a libzstd without threads compresses in the caller
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_nbWorkers, std::exchange(workers_, 0));
  return run(std::exchange(held_, {}), false);
}

expected<void> zstd_compressor::finish() {
  workers_ = 0;
  return run(std::exchange(held_, {}), true);
}

expected<void> zstd_compressor::run(std::string_view bytes, bool end) {
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  while (end || in.pos < in.size) {
    ZSTD_outBuffer out{block_.data(), block_.size(), 0};
    const auto left = ZSTD_compressStream2(context_.get(), &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(left)) return zstd_failed("compress", left);
    if (out.pos > 0)
      if (auto taken = out_(std::string_view{block_}.substr(0, out.pos)); !taken) return taken;
    if (end && left == 0) break;
  }
  return {};
}

/// Streams of xz, one behind the other.
class decompressor::xz_reader {
public:
  explicit xz_reader(int window_log_max) {
    const auto memory_max = (std::uint64_t{1} << window_log_max) + xz_overhead_bytes;
    if (lzma_stream_decoder(&stream_, memory_max, LZMA_CONCATENATED) != LZMA_OK) throw std::bad_alloc{};
  }
  xz_reader(const xz_reader&) = delete;
  xz_reader& operator=(const xz_reader&) = delete;
  ~xz_reader() { lzma_end(&stream_); }

  template <class Pass>
  expected<void> run(std::string_view bytes, lzma_action action, std::string& block, const Pass& pass) {
    stream_.next_in = reinterpret_cast<const std::uint8_t*>(bytes.data());
    stream_.avail_in = bytes.size();
    for (;;) {
      stream_.next_out = reinterpret_cast<std::uint8_t*>(block.data());
      stream_.avail_out = block.size();
      const auto done = lzma_code(&stream_, action);
      if (done != LZMA_OK && done != LZMA_STREAM_END && done != LZMA_BUF_ERROR)
        return fail(ec::corrupt, done == LZMA_MEMLIMIT_ERROR ? "cannot decompress: xz asks for too much memory"
                                                             : "cannot decompress: the xz stream is damaged");
      if (auto taken = pass(std::string_view{block}.substr(0, block.size() - stream_.avail_out)); !taken) return taken;
      if (done == LZMA_STREAM_END) return {};
      if (stream_.avail_out > 0 && stream_.avail_in == 0 && action == LZMA_RUN) return {};
      if (done == LZMA_BUF_ERROR) return fail(ec::corrupt, "cannot decompress: the xz stream is cut off");
    }
  }

private:
  lzma_stream stream_ = LZMA_STREAM_INIT;
};

decompressor::decompressor(byte_sink out, const decompress_limits& limits) : out_(std::move(out)), limits_(limits) {}

decompressor::~decompressor() = default;

expected<void> decompressor::write(std::string_view bytes) {
  if (kind_ == kind::raw) return pass(bytes);
  if (kind_ == kind::zstd) return inflate(bytes);
  if (kind_ == kind::xz) return xz_->run(bytes, LZMA_RUN, block_, [this](auto part) { return pass(part); });
  head_ += bytes;
  const auto may_become = [&](std::string_view magic) { return head_.size() < magic.size() && magic.starts_with(head_); };
  if (may_become(zstd_magic) || may_become(xz_magic)) return {};
  const auto head = std::exchange(head_, {});
  if (head.starts_with(xz_magic)) {
    kind_ = kind::xz;
    xz_ = std::make_unique<xz_reader>(limits_.window_log_max);
    block_.resize(xz_block_bytes);
    return write(head);
  }
  if (!head.starts_with(zstd_magic)) {
    kind_ = kind::raw;
    return pass(head);
  }
  kind_ = kind::zstd;
  context_.reset(ZSTD_createDCtx());
  if (!context_) throw std::bad_alloc{};
  if (const auto set = ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, limits_.window_log_max);
      ZSTD_isError(set))
    return zstd_failed("bound the window", set);
  block_.resize(ZSTD_DStreamOutSize());
  return inflate(head);
}

expected<void> decompressor::finish() {
  if (kind_ == kind::unknown) return pass(std::exchange(head_, {}));
  if (kind_ == kind::xz) return xz_->run({}, LZMA_FINISH, block_, [this](auto part) { return pass(part); });
  if (in_frame_) return fail(ec::corrupt, "cannot decompress: the zstd frame is cut off");
  return {};
}

expected<void> decompressor::pass(std::string_view bytes) {
  if (bytes.size() > limits_.bytes_max - bytes_out_)
    return fail(ec::limit_exceeded,
                "cannot decompress: the result is larger than " + std::to_string(limits_.bytes_max) + " bytes");
  bytes_out_ += bytes.size();
  return bytes.empty() ? expected<void>{} : out_(bytes);
}

expected<void> decompressor::inflate(std::string_view bytes) {
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  bool full = false; // a full output block may have left bytes behind in the context
  while (in.pos < in.size || full) {
    ZSTD_outBuffer out{block_.data(), block_.size(), 0};
    const auto left = ZSTD_decompressStream(context_.get(), &out, &in);
    if (ZSTD_isError(left)) return zstd_failed("decompress", left);
    in_frame_ = left != 0;
    full = in_frame_ && out.pos == out.size;
    if (auto taken = pass(std::string_view{block_}.substr(0, out.pos)); !taken) return taken;
  }
  return {};
}

expected<std::string> compress(std::string_view bytes, const zstd_options& options) {
  std::string result;
  zstd_compressor compressor{[&](std::string_view block) -> expected<void> {
                               result += block;
                               return {};
                             },
                             options};
  auto done = compressor.write(bytes).and_then([&] { return compressor.finish(); });
  if (!done) return tl::unexpected(done.error());
  return result;
}

expected<std::string> decompress(std::string_view bytes, const decompress_limits& limits) {
  std::string result;
  // Address space only: pages that are not written cost nothing, growing by copies does.
  result.reserve(std::min({limits.bytes_max, reserved_max, reserved_per_byte * bytes.size()}));
  decompressor reader{[&](std::string_view block) -> expected<void> {
                        result += block;
                        return {};
                      },
                      limits};
  auto done = reader.write(bytes).and_then([&] { return reader.finish(); });
  if (!done) return tl::unexpected(done.error());
  return result;
}

} // namespace coppice::store
