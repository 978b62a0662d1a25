#include "actors/build/build_dir.hpp"

#include "runtime/cgroup.hpp"
#include "store/files.hpp"
#include "store/nar_files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

namespace coppice::actors {
namespace {

namespace fs = std::filesystem;
using rt::unique_fd;

/// How long removing waits for killed processes to be gone.
constexpr std::chrono::milliseconds dying_wait{2'000};

tl::unexpected<error> os_failure(const std::string& tried) {
  return tl::unexpected(store::system_error(errno, tried));
}

/// A file without a name that has this text and is read from its beginning.
expected<std::shared_ptr<unique_fd>> in_memory(const char* name, const std::string& text) {
  auto fd = std::make_shared<unique_fd>(::memfd_create(name, MFD_CLOEXEC));
  if (!*fd) return os_failure(std::string{"cannot make the memory file "} + name);
  if (auto done = store::write_all(fd->get(), text, name); !done) return tl::unexpected(done.error());
  if (::lseek(fd->get(), 0, SEEK_SET) < 0) return os_failure(std::string{"cannot rewind the memory file "} + name);
  return fd;
}

} // namespace

fs::path find_program(const std::string& program_name) {
  std::error_code ignored;
  const auto here = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  auto beside = here / program_name;
  return fs::exists(beside, ignored) ? beside : here.parent_path() / "libexec/coppice" / program_name;
}

expected<std::shared_ptr<build_dir>> build_dir::make(sandbox_plan plan, build_dir_config config) {
  std::shared_ptr<build_dir> made{new build_dir{std::move(plan), std::move(config)}};
  if (auto done = made->set_up(); !done) {
    (void)made->remove(); // ignored: the first error tells more, and scratch is swept at the next start
    return fail(done.error().code,
                "cannot set up the build of " + made->plan_.drv.base_name() + ": " + done.error().what);
  }
  return made;
}

expected<void> build_dir::make_dir(const fs::path& path, mode_t mode) const {
  if (::mkdir(path.c_str(), mode) < 0 || ::chmod(path.c_str(), mode) < 0)
    return os_failure("cannot make " + path.string());
  if (config_.run_as && ::chown(path.c_str(), config_.run_as->uid, config_.run_as->gid) < 0)
    return os_failure("cannot give away " + path.string());
  return {};
}

expected<void> build_dir::write(const fs::path& path, const std::string& text) const {
  unique_fd fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644)};
  if (!fd) return os_failure("cannot make " + path.string());
  if (config_.run_as && ::fchown(fd.get(), config_.run_as->uid, config_.run_as->gid) < 0)
    return os_failure("cannot give away " + path.string());
  return store::write_all(fd.get(), text, path);
}

/// Makes the inputs that are symbolic links, which cannot be mounted; the others.
expected<std::vector<nix::store_path>> build_dir::link_inputs() const {
  std::vector<nix::store_path> mounted;
  for (const auto& input : plan_.inputs) {
    const auto path = config_.inputs_dir / input.base_name();
    std::error_code why;
    const auto status = fs::symlink_status(path, why);
    if (!fs::exists(status)) return fail(ec::missing, "the input " + path.string() + " is not there");
    if (!fs::is_symlink(status)) {
      mounted.push_back(input);
      continue;
    }
    fs::copy_symlink(path, config_.dir / "store" / input.base_name(), why);
    if (why) return fail(ec::io, "cannot copy the link " + path.string() + ": " + why.message());
  }
  return mounted;
}

/// The directory with the etc_files. Making and removing files is what the start of a small build waits for, and these
/// are nearly always the same.
expected<fs::path> build_dir::etc() const {
  nix::hasher name{nix::hash_algo::sha256};
  for (const auto& [file, text] : plan_.etc_files)
    name.update(file + '\0' + std::to_string(text.size()) + '\0' + text);
  const auto ready = config_.etc_dir / name.finish().base16().substr(0, 32);
  std::error_code why;
  if (fs::is_directory(ready, why)) return ready;
  fs::create_directories(config_.etc_dir, why);
  if (why) return fail(ec::io, "cannot make " + config_.etc_dir.string() + ": " + why.message());
  const auto mine = config_.dir / "etc";
  if (auto done = make_dir(mine, 0755); !done) return tl::unexpected(done.error());
  for (const auto& [file, text] : plan_.etc_files)
    if (auto done = write(mine / file, text); !done) return tl::unexpected(done.error());
  fs::rename(mine, ready, why); // whole, or not at all; after a crash of the machine the node begins without any
  if (why && !fs::is_directory(ready)) return fail(ec::io, "cannot make " + ready.string() + ": " + why.message());
  return ready;
}

expected<void> build_dir::set_up() {
  if (auto done = store::remove_tree(config_.dir); !done) return done;
  const std::pair<fs::path, mode_t> dirs[] = {
      {config_.dir, 0700}, {config_.dir / "build", 0700}, {config_.dir / "store", 01775}};
  for (const auto& [path, mode] : dirs)
    if (auto done = make_dir(path, mode); !done) return done;
  for (const auto& [name, text] : plan_.files)
    if (auto done = write(config_.dir / "build" / name, text); !done) return done;
  auto shared = etc();
  if (!shared) return tl::unexpected(shared.error());
  for (const auto& path : plan_.paths)
    if (!path.optional &&
        ::access(path.source.c_str(), F_OK) < 0) // as our user; the sandbox's own error tells the rest
      return fail(ec::missing, "the sandbox path " + path.source + " is not there");
  auto mounted = link_inputs();
  if (!mounted) return tl::unexpected(mounted.error());

  const sandbox_place place{config_.dir / "build", config_.dir / "store", *shared, config_.inputs_dir,
                            std::move(*mounted)};
  auto arguments = in_memory("bwrap-arguments", bwrap_arguments(plan_, place));
  if (!arguments) return tl::unexpected(arguments.error());
  auto order = in_memory("exec-order", exec_order(plan_, place));
  if (!order) return tl::unexpected(order.error());
  arguments_ = std::move(*arguments);
  order_ = std::move(*order);
  program_ = std::make_shared<unique_fd>(::open(config_.exec_program.c_str(), O_RDONLY | O_CLOEXEC));
  if (!*program_) return os_failure("cannot open " + config_.exec_program.string());
  return {};
}

rt::process_spec build_dir::process(const rt::process_limits& limits) const {
  rt::process_spec spec;
  spec.argv = {plan_.bwrap, "--args", std::to_string(sandbox_arguments_fd), "--",
               "/proc/self/fd/" + std::to_string(sandbox_program_fd)};
  spec.fds = {arguments_, program_, order_};
  spec.with_report = true; // sandbox_report_fd
  spec.output = rt::output_kind::pty;
  spec.output_on_stdout = false; // bwrap would make the terminal its /dev/console; coppice-exec duplicates it
  spec.run_as = config_.run_as;
  spec.group = config_.group;
  spec.limits = limits;
  return spec;
}

tl::expected<std::map<std::string, fs::path>, build_fault> build_dir::collect_outputs() const {
  std::map<std::string, fs::path> found;
  for (const auto& [name, path] : plan_.outputs) {
    auto place = config_.dir / "store" / path.base_name();
    struct stat s {};
    if (::lstat(place.c_str(), &s) < 0) {
      if (errno != ENOENT)
        return tl::unexpected(
            build_fault{failure::infra, "cannot look at " + place.string() + ": " + std::strerror(errno)});
      return tl::unexpected(build_fault{failure::build_failed, "builder for '" + plan_.drv.to_string(plan_.store_dir) +
                                                                   "' failed to produce output path for output '" +
                                                                   name + "' at '" + path.to_string(plan_.store_dir) +
                                                                   "'"});
    }
    found.emplace(name, std::move(place));
  }
  return found;
}

std::string build_dir::as_inside(std::string text) const {
  const auto here = (config_.dir / "store/").string(), inside = plan_.store_dir + "/";
  for (auto at = text.find(here); at != text.npos; at = text.find(here, at + inside.size()))
    text.replace(at, here.size(), inside);
  return text;
}

expected<void> build_dir::remove() const {
  expected<void> group;
  if (config_.group) group = config_.group->remove(dying_wait);
  auto tree = store::remove_tree(config_.dir);
  return tree ? group : tree;
}

} // namespace coppice::actors
