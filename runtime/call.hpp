#pragma once

#include "messages/wire.hpp"
#include "runtime/curve.hpp"
#include "runtime/envelope.hpp"

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// The client's side of the protocol, for programs without actors.
namespace coppice::rt {

/// A node that may be asked.
struct endpoint {
  std::string address;    ///< "tcp://host:port"
  std::string server_key; ///< its public key; empty: the key file's server_key
};

/// What a node tells the programs on its machine, in <state>/endpoint.toml.
struct endpoint_file {
  std::string listen;
  std::string http;
  std::string server_key;
  std::int64_t pid = 0;
  std::vector<std::string> elsewhere; ///< endpoints where the node may be one day, if it runs on several machines in turn
  COPPICE_STRUCT(endpoint_file, 1, listen, 2, http, 3, server_key, 4, pid, 5, elsewhere)
};
/// In a state directory: there while the node runs on another machine.
inline constexpr const char* stands_by_file = "stands-by";
expected<void> write_endpoint_file(const std::filesystem::path& path, const endpoint_file& e);

/// Where to go and with which key.
struct credentials {
  std::vector<endpoint> endpoints; ///< tried in turn
  key_file key;
  std::filesystem::path key_path; ///< for error texts
};
/// All of them, as it listens first.
std::vector<endpoint> endpoints_of(const endpoint_file& e);
/// The node that has its state in `state_dir`: from endpoint.toml and keys/client.toml there; not_found if there is
/// none.
expected<credentials> try_state_dir(const std::filesystem::path& state_dir);

struct connect_options {
  std::string name = "coppice";                     ///< of the program, for the node's log
  std::string text;                                 ///< its version
  std::chrono::milliseconds connect_timeout{5'000}; ///< per endpoint and try
  std::chrono::milliseconds ping{2'000};            ///< silence after which a waiting call asks for a sign of life
  int liveness = 3;                                 ///< so many times `ping` without one: another connection
};

/// One connection to one of several nodes. Calls may be repeated on the way, as every request of the client's protocol
/// may be. For one thread.
class connection {
public:
  /// Tries each endpoint once. `forbidden`: a node refused the key; `peer_down`: nobody answers anywhere;
  /// `unsupported`: no common version. The text names each endpoint and what happened there.
  static expected<connection> connect(credentials c, connect_options o = {});
  connection(connection&&) noexcept;
  connection& operator=(connection&&) noexcept;
  ~connection();

  /// The exposed actor's answer, or its error, or one of connect()'s errors or `deadline` after `timeout`; a lost
  /// connection is made anew, to the next endpoint if need be, and the call repeated.
  template <class Reply, class Msg>
  expected<Reply> call(std::string_view target, std::string_view method, const Msg& m,
                       std::chrono::milliseconds timeout) {
    auto answer = call_bytes(target, method, wire::encode(m), timeout);
    if (!answer) return tl::unexpected(answer.error());
    return wire::decode<Reply>(*answer);
  }
  expected<std::string> call_bytes(std::string_view target, std::string_view method, std::string body,
                                   std::chrono::milliseconds timeout);
  /// What the node said of itself.
  const welcome& peer() const;
  /// Where the present connection goes.
  const endpoint& where() const;

private:
  struct impl;
  explicit connection(std::unique_ptr<impl> i);
  std::unique_ptr<impl> impl_;
};

} // namespace coppice::rt
