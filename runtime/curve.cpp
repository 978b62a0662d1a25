#include "runtime/curve.hpp"

#include "messages/utf8.hpp"
#include "runtime/fd.hpp"
#include "runtime/settings.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <zmq.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <set>

namespace coppice::rt {

namespace fs = std::filesystem;

namespace {

tl::unexpected<error> refused(std::string_view doing, const fs::path& path) {
  int why = errno;
  auto code = why == ENOENT ? ec::not_found : why == EEXIST ? ec::conflict : why == ENOSPC ? ec::storage_full : ec::io;
  return fail(code, fmt::format("cannot {} {}: {}", doing, path.string(), std::strerror(why)));
}

expected<void> write_all(int fd, std::string_view text, const fs::path& path) {
  while (!text.empty()) {
    auto n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return refused("write", path);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  if (::fsync(fd) != 0) return refused("sync", path);
  return {};
}

expected<void> sync_directory(const fs::path& file) {
  auto directory = file.parent_path().empty() ? fs::path{"."} : file.parent_path();
  unique_fd fd{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!fd || ::fsync(fd.get()) != 0) return refused("sync", directory);
  return {};
}

/// Puts `text` where `path` is or not yet is, in one step, readable by its owner only.
expected<void> put_file(const fs::path& path, std::string_view text, bool replace) {
  fs::path temporary = path.string() + ".new." + std::to_string(::getpid());
  unique_fd fd{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)};
  if (!fd) return refused("create", temporary);
  auto ok = write_all(fd.get(), text, temporary);
  if (ok && replace && ::rename(temporary.c_str(), path.c_str()) != 0) ok = refused("replace", path);
  if (ok && !replace && ::link(temporary.c_str(), path.c_str()) != 0) ok = refused("create", path);
  ::unlink(temporary.c_str()); // ignored: after a rename it is gone, else it is only litter
  return ok ? sync_directory(path) : ok;
}

expected<void> check_name(std::string_view name, const fs::path& path) {
  if (!name.empty() && name.size() <= key_name_bytes_max && is_printable(name)) return {};
  return fail(ec::invalid,
              fmt::format("{}: a key's name is 1 to {} printable bytes", path.string(), key_name_bytes_max));
}

expected<void> check_key_file(const key_file& key, const fs::path& path) {
  if (auto ok = check_name(key.name, path); !ok) return ok;
  if (!is_key(key.public_key) || !is_key(key.secret_key) || !(key.server_key.empty() || is_key(key.server_key))) {
    return fail(ec::invalid, fmt::format("{}: a key is not {} characters of z85", path.string(), key_chars));
  }
  if (auto pair = pair_of(key.secret_key); !pair || pair->public_key != key.public_key) {
    return fail(ec::invalid, fmt::format("{}: public_key does not belong to secret_key", path.string()));
  }
  return {};
}

} // namespace

key_pair make_keys() {
  std::array<char, key_chars + 1> open{}, secret{};
  if (zmq_curve_keypair(open.data(), secret.data()) != 0) throw std::runtime_error("libzmq was built without CURVE");
  return {open.data(), secret.data()};
}

expected<key_pair> pair_of(const std::string& secret_key) {
  std::array<char, key_chars + 1> open{};
  if (!is_key(secret_key) || zmq_curve_public(open.data(), secret_key.c_str()) != 0)
    return fail(ec::invalid, fmt::format("a secret key is {} characters of z85", key_chars));
  return key_pair{open.data(), secret_key};
}

bool is_key(std::string_view text) {
  std::array<std::uint8_t, 32> raw{};
  if (text.size() != key_chars || text.find('\0') != std::string_view::npos) return false;
  static constexpr std::string_view alphabet =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
  if (text.find_first_not_of(alphabet) != std::string_view::npos) return false;
  return zmq_z85_decode(raw.data(), std::string{text}.c_str()) != nullptr;
}

expected<void> require_private(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return refused("read the key", path);
  if ((info.st_mode & 077) == 0) return {};
  return fail(ec::invalid, fmt::format("{}: others may read this key; chmod 600 it", path.string()));
}

expected<key_file> read_key_file(const fs::path& path) {
  if (auto secret = require_private(path); !secret) return tl::unexpected(secret.error());
  auto key = read_settings<key_file>(path);
  if (!key) return key;
  if (auto ok = check_key_file(*key, path); !ok) return tl::unexpected(ok.error());
  return key;
}

expected<void> write_key_file(const fs::path& path, const key_file& key) {
  if (auto ok = check_key_file(key, path); !ok) return ok;
  auto text = fmt::format("name = {}\nrole = \"{}\"\npublic_key = {}\nsecret_key = {}\n", toml_quoted(key.name),
                          to_string(key.role), toml_quoted(key.public_key), toml_quoted(key.secret_key));
  if (!key.server_key.empty()) text += fmt::format("server_key = {}\n", toml_quoted(key.server_key));
  return put_file(path, text, false);
}

expected<authorized_keys> read_authorized(const fs::path& path) {
  auto keys = read_settings<authorized_keys>(path);
  if (!keys) return keys;
  if (keys->key.size() > authorized_max) {
    return fail(ec::limit_exceeded, fmt::format("{}: more than {} keys", path.string(), authorized_max));
  }
  std::set<std::string_view> seen;
  for (const auto& k : keys->key) {
    if (auto ok = check_name(k.name, path); !ok) return tl::unexpected(ok.error());
    if (!is_key(k.public_key))
      return fail(ec::invalid, fmt::format("{}: the key of {} is no key", path.string(), k.name));
    if (!seen.insert(k.public_key).second) {
      return fail(ec::invalid, fmt::format("{}: the key of {} is given twice", path.string(), k.name));
    }
  }
  return keys;
}

expected<void> write_authorized(const fs::path& path, const authorized_keys& keys) {
  std::string text = "# Who may talk to this node; read again when it changes.\n";
  for (const auto& k : keys.key) {
    text += fmt::format("\n[[key]]\nname = {}\nrole = \"{}\"\npublic_key = {}\n", toml_quoted(k.name),
                        to_string(k.role), toml_quoted(k.public_key));
  }
  return put_file(path, text, true);
}

expected<void> edit_authorized(const fs::path& path, const std::function<expected<void>(authorized_keys&)>& change) {
  const auto directory = path.parent_path().empty() ? fs::path{"."} : path.parent_path();
  unique_fd turn{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)}; // the file itself is replaced
  if (!turn || ::flock(turn.get(), LOCK_EX) != 0) return refused("lock", directory);
  auto keys = read_authorized(path);
  if (!keys && keys.error().code != ec::not_found) return tl::unexpected(keys.error());
  auto list = keys ? std::move(*keys) : authorized_keys{};
  return change(list).and_then([&] { return write_authorized(path, list); });
}

expected<bool> allow_list::refresh() {
  struct stat info {};
  if (::stat(path_.c_str(), &info) != 0) {
    bool changed = seen_.has_value();
    seen_.reset();
    callers_.clear();
    if (errno != ENOENT) return refused("read the allow-list", path_);
    return changed;
  }
  stamp now{info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_size, info.st_ino};
  if (seen_ == now) return false;
  seen_ = now;
  auto keys = read_authorized(path_);
  if (!keys) return tl::unexpected(keys.error());
  callers_.clear();
  for (auto& k : keys->key)
    callers_.emplace(std::move(k.public_key), caller{std::move(k.name), k.role});
  return true;
}

const caller* allow_list::find(std::string_view public_key) const {
  auto i = callers_.find(public_key);
  return i == callers_.end() ? nullptr : &i->second;
}

} // namespace coppice::rt
