#include "nix/nar.hpp"
#include "store/nar_files.hpp"
#include "store/tree_walk.hpp"

#include <fcntl.h>

#include <cerrno>

namespace coppice::store {

namespace {

constexpr std::size_t read_block_bytes = 256 * 1024;
constexpr std::size_t target_bytes_max = 4095; // of a symbolic link, as Linux has it

class nar_dumper final : public tree_visitor {
public:
  explicit nar_dumper(const byte_sink& out)
      : writer_([this, &out](std::string_view bytes) {
        if (taken_) taken_ = out(bytes);
      })
      , block_(read_block_bytes, '\0') {}

  expected<void> leaf(const tree_entry& entry) override {
    announce(entry);
    if (S_ISREG(entry.st.st_mode)) return file(entry);
    if (S_ISLNK(entry.st.st_mode)) return link(entry);
    return fail(ec::invalid,
                entry.path() + " is neither a file, nor a directory, nor a symbolic link: a NAR cannot hold it");
  }
  expected<void> before(const tree_entry& directory) override {
    announce(directory);
    writer_.begin_directory();
    return taken_;
  }
  expected<void> after(const tree_entry&) override {
    writer_.end_directory();
    return taken_;
  }
  expected<void> finish() {
    writer_.finish();
    return taken_;
  }

private:
  void announce(const tree_entry& entry) {
    if (!entry.is_top()) writer_.entry(entry.name);
  }

  expected<void> file(const tree_entry& entry) {
    rt::unique_fd fd{::openat(entry.at.fd(), entry.name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
    if (!fd) return entry.at.failed("open", entry.name);
    writer_.regular((entry.st.st_mode & S_IXUSR) != 0, static_cast<std::uint64_t>(entry.st.st_size));
    while (taken_) {
      const auto got = ::read(fd.get(), block_.data(), block_.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return entry.at.failed("read", entry.name);
      const auto size = static_cast<std::uint64_t>(got);
      if (size > writer_.contents_left() || (size == 0 && writer_.contents_left() > 0))
        return fail(ec::io, entry.path() + " changed its size while it was read");
      if (size == 0) break;
      writer_.contents(std::string_view{block_}.substr(0, size));
    }
    return taken_;
  }

  expected<void> link(const tree_entry& entry) {
    std::string target(target_bytes_max + 1, '\0');
    const auto size = ::readlinkat(entry.at.fd(), entry.name.c_str(), target.data(), target.size());
    if (size < 0) return entry.at.failed("read the symbolic link", entry.name);
    writer_.symlink(std::string_view{target}.substr(0, static_cast<std::size_t>(size)));
    return taken_;
  }

  expected<void> taken_; // by the sink, so far
  nix::nar_writer writer_;
  std::string block_;
};

} // namespace

expected<void> dump_path(const std::filesystem::path& real, const byte_sink& out) {
  nar_dumper dumper{out};
  return walk_tree(real, dumper, tree_depth_max).and_then([&] { return dumper.finish(); });
}

} // namespace coppice::store
