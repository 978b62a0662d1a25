#include "apps/common/files.hpp"

#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <cstdlib>

namespace coppice::app {
namespace {

namespace fs = std::filesystem;

fs::path home() {
  if (const char* dir = std::getenv("HOME"); dir && *dir) return dir;
  const passwd* user = getpwuid(getuid());
  return user && user->pw_dir ? user->pw_dir : "/";
}

/// $VARIABLE/coppice, or ~/otherwise/coppice.
fs::path xdg(const char* variable, const char* otherwise) {
  const char* dir = std::getenv(variable);
  return (dir && *dir == '/' ? fs::path(dir) : home() / otherwise) / "coppice";
}

} // namespace

expected<void> replace_link(const fs::path& target, const fs::path& link) {
  std::error_code error;
  const auto status = fs::symlink_status(link, error);
  if (fs::exists(status) && !fs::is_symlink(status))
    return fail(
        ec::conflict,
        fmt::format("cannot make the link {}: something else has that name (choose another with -o)", link.string()));
  const auto fresh = fs::path(fmt::format("{}.{}.tmp", link.string(), getpid()));
  fs::remove(fresh, error);
  fs::create_symlink(target, fresh, error);
  if (!error) fs::rename(fresh, link, error);
  if (error) return fail(ec::io, fmt::format("cannot make the link {}: {}", link.string(), error.message()));
  return {};
}

fs::path default_state_dir() {
  return geteuid() == 0 ? fs::path("/var/lib/coppice") : xdg("XDG_STATE_HOME", ".local/state");
}
fs::path default_eval_root() {
  return xdg("XDG_CACHE_HOME", ".cache") / "eval";
}
fs::path default_client_store() {
  return xdg("XDG_DATA_HOME", ".local/share") / "store";
}

} // namespace coppice::app
