#include "store/spool_file.hpp"

#include "store/files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

namespace coppice::store {

namespace fs = std::filesystem;

namespace {

constexpr const char* prefix = "spool-";

} // namespace

expected<spool_file> spool_file::create(const fs::path& dir) {
  auto name = (dir / (std::string{prefix} + "XXXXXX")).string();
  spool_file f;
  f.fd_.reset(::mkostemp(name.data(), O_CLOEXEC));
  if (!f.fd_) return tl::unexpected(system_error(errno, "cannot create a file in " + dir.string()));
  ::unlink(name.c_str()); // ignored: a file that stays is removed by prepare()
  f.dir_ = dir;
  return f;
}

expected<void> spool_file::prepare(const fs::path& dir) {
  if (auto made = make_directories(dir); !made) return made;
  std::error_code e;
  for (fs::directory_iterator it{dir, e}, end; !e && it != end; it.increment(e))
    if (it->path().filename().string().starts_with(prefix)) fs::remove(it->path(), e);
  if (e) return tl::unexpected(system_error(e.value(), "cannot empty " + dir.string()));
  return {};
}

expected<void> spool_file::write(std::string_view bytes) {
  size_ += bytes.size();
  return write_all(fd_.get(), bytes, dir_);
}

expected<std::size_t> spool_file::read(std::uint64_t offset, std::span<char> into) const {
  return read_at(fd_.get(), offset, into, dir_);
}

expected<void> spool_file::map(const std::function<expected<void>(std::string_view)>& use) const {
  if (size_ == 0) return use({});
  void* at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd_.get(), 0);
  if (at == MAP_FAILED) return tl::unexpected(system_error(errno, "cannot map a file of " + dir_.string()));
  const auto unmap = [this](void* p) { ::munmap(p, size_); };
  const std::unique_ptr<void, decltype(unmap)> mapped{at, unmap};
  return use({static_cast<const char*>(at), size_});
}

} // namespace coppice::store
