#pragma once

#include "messages/build.hpp"

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// From Nix expressions to derivations, by `nix-instantiate`.
namespace coppice::app {

/// What to evaluate, as `nix-build` has it.
struct evaluation {
  std::vector<std::string> files;
  std::vector<std::string> attributes;                       ///< of each file; empty for the file's value itself
  std::vector<std::pair<std::string, std::string>> args;     ///< name and Nix expression
  std::vector<std::pair<std::string, std::string>> arg_strs; ///< name and string
};

/// Where evaluation puts derivations and sources.
struct eval_store {
  std::filesystem::path root; ///< "/": the machine's own Nix store; else files lie in <root>/nix/store
  /// The directory that holds the store objects.
  std::filesystem::path objects() const { return root / "nix/store"; }
  bool is_private() const { return root != "/"; }
};

/// The machine's store if it can be used (by its daemon, or because it is writable), else a private one in `root`.
eval_store choose_eval_store(const std::filesystem::path& root);

/// A program, its arguments and its whole environment.
struct command {
  std::vector<std::string> argv; ///< the first is the program's path
  std::vector<std::string> env;  ///< NAME=value
};

/// The call of `program` (nix-instantiate); from `env`, settings of other stores are left out. Pure.
command instantiate_command(const std::string& program, const evaluation& what, const eval_store& store,
                            const std::vector<std::string>& env);

/// What nix-instantiate prints: a derivation per line, with "!output" behind if only one output is meant. Pure.
expected<std::vector<request_root>> parse_instantiated(std::string_view text);

/// "…-x.drv", "…-x.drv!out,dev" or a path of such a file: the last component as a root, and the wanted outputs.
expected<request_root> parse_root(std::string_view text);

/// A store path in full, or its last component alone.
expected<nix::store_path> parse_store_path(std::string_view text);

/// Evaluates; each line of the evaluator's messages goes to `message` as it comes. Fails with `not_found` if there is
/// no nix-instantiate, `invalid` if it fails, `shutdown` if it was interrupted or `stop` became true.
expected<std::vector<request_root>> evaluate(const evaluation& what, const eval_store& store,
                                             const std::function<void(std::string_view)>& message,
                                             const std::atomic<bool>& stop);

} // namespace coppice::app
