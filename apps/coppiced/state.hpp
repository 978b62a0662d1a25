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
///   stands-by         there while the hub runs on another machine
namespace coppice::app {

class state_dir {
public:
  /// Takes the directory for this process, creating what is missing. An empty name is the one of before, an empty
  /// secret key likewise. `locked` if another process has it; `io`, saying what was tried, if it cannot be written.
  /// `machine`: the name of this one among those on which the hub may run, if there are several.
  static expected<state_dir> take(std::filesystem::path dir, std::string node_name, const std::string& secret_key,
                                  const std::string& machine);

  const std::filesystem::path& path() const { return path_; }
  const std::string& node_name() const { return node_name_; }
  incarnation born() const { return born_; }
  const rt::key_file& node_key() const { return node_key_; }
  const std::shared_ptr<const nix::secret_key>& signing_key() const { return signing_key_; }
  std::filesystem::path authorized_file() const { return path_ / "authorized.toml"; }

  /// Tells clients on this machine where to connect, and where else the node may be one day.
  expected<void> write_endpoint(const std::string& listen, const std::string& http,
                                const std::vector<std::string>& elsewhere) const;
  /// The process ends in order.
  void remove_endpoint() const;

  /// By what a node is known, and whom it lets in.
  struct identity {
    std::string secret_key, signing_key;
    rt::authorized_keys authorized;
  };
  expected<identity> hub_keys() const;
  /// Takes the place of this node on other machines. Who may connect on this machine still may.
  expected<void> adopt(const identity& hub, incarnation born);
  /// While the hub runs on another machine, operators must not change what is here.
  expected<void> stand_by(bool yes) const;

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
  std::string local_; ///< name of the key of clients on this machine
  incarnation born_;
  rt::key_file node_key_;
  std::shared_ptr<const nix::secret_key> signing_key_;
};

} // namespace coppice::app
