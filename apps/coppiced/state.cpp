#include "apps/coppiced/state.hpp"

#include "apps/common/node_name.hpp"
#include "runtime/call.hpp"
#include "store/files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace coppice::app {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t small_file_bytes_max = 64 << 10;

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

expected<std::string> read_or_empty(const fs::path& file) {
  auto text = store::read_file(file, small_file_bytes_max);
  if (!text && text.error().code == ec::missing) return std::string{};
  if (!text) return text;
  return trimmed(std::move(*text));
}

/// Replaces a key file, which write_key_file() never does.
expected<void> write_anew(const fs::path& file, const rt::key_file& key) {
  if (auto done = store::remove_file(file); !done) return done;
  return rt::write_key_file(file, key);
}

} // namespace

expected<state_dir> state_dir::take(fs::path dir, std::string node_name, const std::string& secret_key,
                                    const std::string& machine) {
  state_dir s;
  s.local_ = machine.empty() ? "local" : "local on " + machine;
  s.path_ = fs::absolute(dir).lexically_normal();
  if (auto done = store::make_directories(s.path_); !done) return tl::unexpected(done.error());
  if (auto done = s.lock(); !done) return tl::unexpected(done.error());
  for (auto* sub : {"keys", "kept", "running", "uploads", "local"})
    if (auto done = store::make_directories(s.path_ / sub); !done) return tl::unexpected(done.error());
  std::error_code failed;
  fs::permissions(s.path_ / "keys", fs::perms::owner_all, failed);
  if (failed) return fail(ec::io, "cannot make " + (s.path_ / "keys").string() + " private: " + failed.message());
  if (auto done = s.settle_name(std::move(node_name)); !done) return tl::unexpected(done.error());
  if (auto done = s.count_incarnation(); !done) return tl::unexpected(done.error());
  if (auto done = s.settle_node_key(secret_key); !done) return tl::unexpected(done.error());
  if (auto done = s.make_client_key(); !done) return tl::unexpected(done.error());
  if (auto done = s.make_signing_key(); !done) return tl::unexpected(done.error());
  return s;
}

expected<void> state_dir::lock() {
  auto file = path_ / "lock";
  lock_.reset(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock_) return tl::unexpected(store::system_error(errno, "cannot write the state directory: open " + file.string()));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) return {};
  if (errno == EWOULDBLOCK)
    return fail(ec::locked, "another coppiced serves from " + path_.string() + " (it holds " + file.string() + ")");
  return tl::unexpected(store::system_error(errno, "cannot lock " + file.string()));
}

expected<void> state_dir::settle_name(std::string wanted) {
  auto file = path_ / "node-name";
  auto kept = read_or_empty(file);
  if (!kept) return tl::unexpected(kept.error());
  if (wanted.empty()) wanted = *kept;
  if (wanted.empty()) {
    char host[65] = {};
    ::gethostname(host, sizeof host - 1);
    wanted = check_node_name(host) ? host : "node";
  }
  if (auto good = check_node_name(wanted); !good) return good;
  node_name_ = wanted;
  if (*kept == wanted) return {};
  return store::replace_file(file, wanted + "\n");
}

expected<void> state_dir::count_incarnation() {
  auto file = path_ / "incarnation";
  auto text = read_or_empty(file);
  if (!text) return tl::unexpected(text.error());
  std::uint64_t last = 0;
  if (!text->empty()) {
    auto [end, failed] = std::from_chars(text->data(), text->data() + text->size(), last);
    if (failed != std::errc{} || end != text->data() + text->size())
      return fail(ec::corrupt, file.string() + " does not hold a number; restore it, or the ledger refuses this node");
  }
  born_ = {last + 1};
  return store::replace_file(file, std::to_string(born_.value) + "\n");
}

expected<void> state_dir::settle_node_key(const std::string& secret_key) {
  const auto file = path_ / "keys/node.toml";
  if (!secret_key.empty() || !fs::exists(file)) {
    auto pair = secret_key.empty() ? rt::make_keys() : rt::pair_of(secret_key);
    if (!pair) return tl::unexpected(pair.error());
    if (auto done = write_anew(file, {node_name_, role::node, pair->public_key, pair->secret_key, ""}); !done) return done;
  }
  auto key = rt::read_key_file(file);
  if (!key) return tl::unexpected(key.error());
  node_key_ = std::move(*key);
  return {};
}

expected<void> state_dir::make_client_key() {
  const auto file = path_ / "keys/client.toml";
  if (fs::exists(file)) {
    auto key = rt::read_key_file(file);
    if (!key || key->server_key == node_key_.public_key) return key.map([](auto&) {});
    key->server_key = node_key_.public_key;
    return write_anew(file, *key);
  }
  auto pair = rt::make_keys(); // whoever may read this file may do everything here, as with a database's socket
  rt::key_file client{local_, role::admin, pair.public_key, pair.secret_key, node_key_.public_key};
  auto let_in = rt::edit_authorized(authorized_file(), [&](rt::authorized_keys& keys) -> expected<void> {
    std::erase_if(keys.key, [&](auto& k) { return k.name == client.name; });
    keys.key.push_back({client.name, client.role, client.public_key});
    return {};
  });
  if (!let_in) return let_in;
  return rt::write_key_file(file, client);
}

expected<state_dir::identity> state_dir::hub_keys() const {
  auto keys = rt::read_authorized(authorized_file());
  if (!keys) return tl::unexpected(keys.error());
  return identity{node_key_.secret_key, signing_key_->to_string(), std::move(*keys)};
}

expected<void> state_dir::adopt(const identity& hub, incarnation born) {
  born_ = born;
  if (auto done = settle_node_key(hub.secret_key); !done) return done;
  if (signing_key_->to_string() != hub.signing_key) {
    if (auto done = store::replace_file(path_ / "keys/cache.secret", hub.signing_key); !done) return done;
    if (auto done = make_signing_key(); !done) return done;
  }
  if (auto done = make_client_key(); !done) return done;
  auto client = rt::read_key_file(path_ / "keys/client.toml");
  if (!client) return tl::unexpected(client.error());
  return rt::edit_authorized(authorized_file(), [&](rt::authorized_keys& keys) -> expected<void> {
    keys = hub.authorized;
    std::erase_if(keys.key, [&](auto& k) { return k.name == client->name; });
    keys.key.push_back({client->name, client->role, client->public_key});
    return {};
  });
}

expected<void> state_dir::stand_by(bool yes) const {
  const auto mark = path_ / rt::stands_by_file;
  return yes ? store::replace_file(mark, "") : store::remove_file(mark);
}

expected<void> state_dir::make_signing_key() {
  const auto file = path_ / "keys/cache.secret";
  auto text = read_or_empty(file);
  if (!text) return tl::unexpected(text.error());
  if (text->empty()) {
    auto made = nix::secret_key::generate(node_name_ + "-1");
    if (!made) return fail(ec::io, "cannot make a signing key: " + made.error().what);
    text = made->to_string();
    if (auto done = store::replace_file(file, *text); !done) return done;
  }
  std::error_code failed;
  fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write, failed);
  if (failed) return fail(ec::io, "cannot make " + file.string() + " private: " + failed.message());
  auto key = nix::secret_key::parse(*text);
  if (!key) return fail(ec::corrupt, "cannot read " + file.string() + ": " + key.error().what);
  signing_key_ = std::make_shared<const nix::secret_key>(std::move(*key));
  const auto text_of_public = signing_key_->public_key().to_string();
  const auto told = read_or_empty(path_ / "keys/cache.public");
  if (told && *told == text_of_public) return {};
  return store::replace_file(path_ / "keys/cache.public", text_of_public + "\n");
}

expected<void> state_dir::write_endpoint(const std::string& listen, const std::string& http,
                                         const std::vector<std::string>& elsewhere) const {
  return rt::write_endpoint_file(path_ / "endpoint.toml", {listen, http, node_key_.public_key, ::getpid(), elsewhere});
}

void state_dir::remove_endpoint() const {
  std::error_code ignored; // a stale one is told by its pid
  fs::remove(path_ / "endpoint.toml", ignored);
}

} // namespace coppice::app
