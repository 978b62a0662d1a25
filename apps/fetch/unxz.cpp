#include "apps/fetch/unxz.hpp"

#include "runtime/fd.hpp"
#include "store/files.hpp"

#include <fcntl.h>
#include <lzma.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

namespace coppice::app {
namespace {

constexpr std::size_t block_bytes = 256 << 10;

class xz_reader {
public:
  xz_reader(std::filesystem::path file, const store::byte_sink& out) : file_(std::move(file)), out_(out) {
    started_ = lzma_stream_decoder(&stream_, xz_memory_bytes_max, LZMA_CONCATENATED);
  }
  ~xz_reader() { lzma_end(&stream_); }
  xz_reader(const xz_reader&) = delete;
  xz_reader& operator=(const xz_reader&) = delete;

  expected<void> write(std::string_view bytes, bool last) {
    if (started_ != LZMA_OK) return refuse(started_);
    stream_.next_in = reinterpret_cast<const std::uint8_t*>(bytes.data());
    stream_.avail_in = bytes.size();
    while (true) {
      stream_.next_out = block_.data();
      stream_.avail_out = block_.size();
      const auto code = lzma_code(&stream_, last ? LZMA_FINISH : LZMA_RUN);
      const auto made = block_.size() - stream_.avail_out;
      if (auto done = out_({reinterpret_cast<const char*>(block_.data()), made}); !done) return done;
      if (code == LZMA_STREAM_END) return {};
      if (code != LZMA_OK) return refuse(code);
      if (!last && stream_.avail_in == 0 && stream_.avail_out > 0) return {};
    }
  }

private:
  expected<void> refuse(lzma_ret code) const {
    const char* why = code == LZMA_FORMAT_ERROR     ? "it is no xz file"
                      : code == LZMA_MEMLIMIT_ERROR ? "it needs too much memory"
                      : code == LZMA_BUF_ERROR      ? "it ends too early"
                      : code == LZMA_MEM_ERROR      ? "there is not enough memory"
                                                    : "it is damaged";
    return fail(ec::corrupt, "cannot decompress " + file_.string() + ": " + why);
  }

  std::filesystem::path file_;
  const store::byte_sink& out_;
  lzma_stream stream_ = LZMA_STREAM_INIT;
  lzma_ret started_;
  std::vector<std::uint8_t> block_ = std::vector<std::uint8_t>(block_bytes);
};

} // namespace

expected<void> read_archive(const std::filesystem::path& file, bool xz, const store::byte_sink& out) {
  const rt::unique_fd fd{::open(file.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd) return tl::unexpected(store::system_error(errno, "cannot open " + file.string()));
  xz_reader reader{file, out};
  std::vector<char> block(block_bytes);
  while (true) {
    const auto got = ::read(fd.get(), block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return tl::unexpected(store::system_error(errno, "cannot read " + file.string()));
    const std::string_view bytes{block.data(), static_cast<std::size_t>(got)};
    if (auto done = xz ? reader.write(bytes, got == 0) : out(bytes); !done) return done;
    if (got == 0) return {};
  }
}

} // namespace coppice::app
