#pragma once

#include "messages/client.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Who may talk to a node: CURVE keys in files, and the list of those that are let in. Keys are z85 text, 40
/// characters.
namespace coppice::rt {

inline constexpr std::size_t key_chars = 40;

struct key_pair {
  std::string public_key;
  std::string secret_key;
};
/// A new pair from the system's random numbers.
key_pair make_keys();
/// The pair that a secret key is of; `invalid` if it is none.
expected<key_pair> pair_of(const std::string& secret_key);
/// True for 40 characters of z85.
bool is_key(std::string_view text);

/// One identity, as it lies in a file that only its owner may read.
struct key_file {
  std::string name; ///< for people, and in the records of what was done with it
  coppice::role role = role::observer;
  std::string public_key;
  std::string secret_key;
  std::string server_key; ///< public key of the node to talk to; empty in a node's own file
  COPPICE_STRUCT(key_file, 1, name, 2, role, 3, public_key, 4, secret_key, 5, server_key)
};
/// `invalid` if others than the owner may read the file.
expected<void> require_private(const std::filesystem::path& path);
/// `invalid` if others than the owner may read the file, or a key in it is none, or the two do not belong together.
expected<key_file> read_key_file(const std::filesystem::path& path);
/// Creates the file durably with mode 0600; `conflict` if it exists.
expected<void> write_key_file(const std::filesystem::path& path, const key_file& key);

/// One entry of the allow-list.
struct authorized_key {
  std::string name;
  coppice::role role = role::observer;
  std::string public_key;
  COPPICE_STRUCT(authorized_key, 1, name, 2, role, 3, public_key)
};
/// The file: [[key]] tables.
struct authorized_keys {
  std::vector<authorized_key> key;
  COPPICE_STRUCT(authorized_keys, 1, key)
};
inline constexpr std::size_t authorized_max = 10000;
inline constexpr std::size_t key_name_bytes_max = 100;

/// `invalid` with the reason for bad names, bad keys and a key given twice; not_found without a file.
expected<authorized_keys> read_authorized(const std::filesystem::path& path);
/// Replaces the file in one step, mode 0600.
expected<void> write_authorized(const std::filesystem::path& path, const authorized_keys& keys);
/// Reads the file, or begins with an empty list, lets `change` alter it, and replaces the file; the programs that do so
/// take turns. The first error, `change`'s own too, leaves the file as it was.
expected<void> edit_authorized(const std::filesystem::path& path,
                               const std::function<expected<void>(authorized_keys&)>& change);

/// The allow-list as it is in its file now. An empty list, or none, admits nobody.
class allow_list {
public:
  explicit allow_list(std::filesystem::path path) : path_(std::move(path)) {}
  /// Reads the file again if it changed since; true if the list may be another now. A file that cannot be understood
  /// leaves the list as it was, and is an error once; a file that is gone empties it.
  expected<bool> refresh();
  /// Who holds this public key; null for nobody who is let in.
  const caller* find(std::string_view public_key) const;
  std::size_t size() const { return callers_.size(); }

private:
  struct stamp {
    std::int64_t seconds, nanoseconds, size;
    std::uint64_t inode;
    friend bool operator==(const stamp&, const stamp&) = default;
  };
  std::filesystem::path path_;
  std::optional<stamp> seen_;
  std::map<std::string, caller, std::less<>> callers_;
};

} // namespace coppice::rt
