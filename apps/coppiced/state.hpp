#pragma once

#include "messages/ids.hpp"
#include "nix/signature.hpp"
#include "runtime/curve.hpp"
#include "runtime/fd.hpp"

#include <filesystem>
#include <memory>
#include <string>

/// The state directory of a node: everything that outlives its process.
///
///   lock              held while a process serves from here
///   incarnation       how often it was started; only ever rising
///   node-name         the node's name, fixed at the first start
///   ledger.sqlite     the ledger
///   cache/            the binary cache
///   local/            the node's own store
///   kept/             the journal of kept outputs
///   running/          logs of attempts that run
///   uploads/          uploads under way
///   keys/             node.toml (CURVE), cache.secret (signatures), client.toml (for clients on this machine)
///   authorized.toml   keys that may connect
///   endpoint.toml     where the running process listens
namespace coppice::app {

class state_dir {
public:
  /// Takes the directory for this process, creating what is missing. An empty name is the one of before, an empty
  /// secret key likewise. `locked` if another process has it; `io`, saying what was tried, if it cannot be written.
  static expected<state_dir> take(std::filesystem::path dir, std::string node_name, const std::string& secret_key);

  const std::filesystem::path& path() const { return path_; }
  const std::string& node_name() const { return node_name_; }
  incarnation born() const { return born_; }
  const rt::key_file& node_key() const { return node_key_; }
  const std::shared_ptr<const nix::secret_key>& signing_key() const { return signing_key_; }
  std::filesystem::path authorized_file() const { return path_ / "authorized.toml"; }

  /// Tells clients on this machine where to connect.
  expected<void> write_endpoint(const std::string& listen, const std::string& http) const;
  /// The process ends in order.
  void remove_endpoint() const;

private:
  state_dir() = default;
  expected<void> lock();
  expected<void> count_incarnation();
  expected<void> settle_name(std::string wanted);
  expected<void> settle_node_key(const std::string& secret_key);
  expected<void> make_client_key();
  expected<void> make_signing_key();

  std::filesystem::path path_;
  rt::unique_fd lock_;
  std::string node_name_;
  incarnation born_;
  rt::key_file node_key_;
  std::shared_ptr<const nix::secret_key> signing_key_;
};

} // namespace coppice::app
