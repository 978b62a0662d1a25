#include "store/files.hpp"
#include "store/metadata.hpp"
#include "store/nar_files.hpp"
#include "store/tree_walk.hpp"

#include <fcntl.h>

#include <cerrno>

namespace coppice::store {

class nar_restorer::state {
public:
  state(tree_cursor cursor, const owner& to) : cursor_(std::move(cursor)), name_(cursor_.top_name()), to_(to) {}

  void entry(std::string_view name) { name_ = name; }

  expected<void> begin_directory() {
    if (::mkdirat(cursor_.fd(), name_.c_str(), 0700) != 0) return cursor_.failed("make directory", name_);
    created_ = true;
    return cursor_.enter(name_);
  }

  expected<void> end_directory() {
    return cursor_.leave().and_then([&](const std::string& name) { return finish(name, 0555); });
  }

  expected<void> regular(bool executable) {
    executable_ = executable;
    file_.reset(::openat(cursor_.fd(), name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file_) return cursor_.failed("create", name_);
    created_ = true;
    return {};
  }

  expected<void> contents(std::string_view chunk) { return write_all(file_.get(), chunk, cursor_.path_of(name_)); }

  expected<void> end_regular() {
    file_.reset();
    return finish(name_, executable_ ? 0555 : 0444);
  }

  expected<void> symlink(std::string_view target) {
    if (::symlinkat(std::string{target}.c_str(), cursor_.fd(), name_.c_str()) != 0)
      return cursor_.failed("make the symbolic link", name_);
    created_ = true;
    return finish(name_, 0777);
  }

  bool created() const { return created_; }

private:
  expected<void> finish(const std::string& name, mode_t mode) {
    const auto fd = open_metadata(cursor_, name);
    if (!fd) return tl::unexpected(fd.error());
    return set_metadata(fd->get(), mode, to_, [&](std::string_view verb) { return cursor_.failed(verb, name); });
  }

  tree_cursor cursor_;
  std::string name_; // of the next node
  owner to_;
  rt::unique_fd file_;
  bool executable_ = false;
  bool created_ = false;
};

nar_restorer::nar_restorer(const std::filesystem::path& target, const owner& to) {
  auto cursor = tree_cursor::at_parent_of(target);
  if (cursor)
    state_ = std::make_unique<state>(std::move(*cursor), to);
  else
    failure_ = cursor.error();
}

nar_restorer::~nar_restorer() = default;

bool nar_restorer::created() const {
  return state_ && state_->created();
}

template <class Act>
nix::expected<void> nar_restorer::attempt(Act act) {
  if (!failure_) {
    expected<void> done = act(*state_);
    if (done) return {};
    failure_ = done.error();
  }
  return nix::fail(failure_->what);
}

nix::expected<void> nar_restorer::begin_directory() {
  return attempt([](state& s) { return s.begin_directory(); });
}

nix::expected<void> nar_restorer::entry(std::string_view name) {
  if (state_) state_->entry(name);
  return {};
}

nix::expected<void> nar_restorer::end_directory() {
  return attempt([](state& s) { return s.end_directory(); });
}

nix::expected<void> nar_restorer::regular(bool executable, std::uint64_t) {
  return attempt([&](state& s) { return s.regular(executable); });
}

nix::expected<void> nar_restorer::contents(std::string_view chunk) {
  return attempt([&](state& s) { return s.contents(chunk); });
}

nix::expected<void> nar_restorer::end_regular() {
  return attempt([](state& s) { return s.end_regular(); });
}

nix::expected<void> nar_restorer::symlink(std::string_view target) {
  return attempt([&](state& s) { return s.symlink(target); });
}

expected<void> restore_path(const std::filesystem::path& target, const byte_source& nar, const owner& to) {
  nar_restorer restorer{target, to};
  if (restorer.failure()) return tl::unexpected(*restorer.failure());
  nix::nar_reader reader{restorer};
  auto explain = [&](const nix::expected<void>& read) -> expected<void> {
    if (read) return {};
    if (restorer.failure()) return tl::unexpected(*restorer.failure());
    return fail(ec::corrupt, "cannot unpack a NAR to " + target.string() + ": " + read.error().what);
  };
  auto restored = nar([&](std::string_view bytes) { return explain(reader.feed(bytes)); }).and_then([&] {
    return explain(reader.finish());
  });
  if (!restored && restorer.created())
    if (auto removed = remove_tree(target); !removed) restored.error().what += "; and " + removed.error().what;
  return restored;
}

} // namespace coppice::store
