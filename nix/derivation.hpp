#pragma once

#include "nix/error.hpp"
#include "nix/store_path.hpp"

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::nix {

/// When an output's path is known: from the start (by inputs or by its declared hash), after the build (floating,
/// impure), or once all inputs are built (deferred).
enum class output_kind { input_addressed, fixed, floating, deferred, impure };

/// One output as the file states it; parse_derivation lets only the five combinations of output_kind through.
struct derivation_output {
  std::optional<store_path> path;
  std::string hash_algo; ///< "[r:]sha256" and so on, or empty.
  std::string hash;      ///< lower-case hexadecimal, "impure", or empty.

  /// Follows from which fields are set.
  output_kind kind() const;

  /// Whether the declared hash is of the NAR rather than of a single file.
  content_method method() const;

  /// The declared hash; fails unless kind() is fixed.
  expected<nix::hash> content_hash() const;

  bool operator==(const derivation_output&) const = default;
};

/// A build step as its .drv file states it; strings are bytes, not necessarily UTF-8.
struct derivation {
  std::string name; ///< without ".drv"; it is not in the file.
  std::map<std::string, derivation_output, std::less<>> outputs;
  std::map<store_path, std::set<std::string>> input_drvs; ///< wanted output names by .drv path.
  std::set<store_path> input_srcs;
  std::string system, builder;
  std::vector<std::string> args;
  std::map<std::string, std::string> env;

  /// The kind of every output (they never differ); input_addressed when there is none.
  output_kind kind() const;

  /// Whether its only output's hash is declared beforehand.
  bool is_fixed_output() const { return kind() == output_kind::fixed; }

  /// What the .drv file refers to: input sources and input derivations.
  std::set<store_path> references() const;

  bool operator==(const derivation&) const = default;
};

/// Fails unless the fields make one of the five kinds of outputs.
expected<void> check_output(const derivation_output& output);

/// Fails unless all outputs are of one kind, and a fixed output is the only one.
expected<void> check_output_kinds(const derivation& drv);

/// Reads a .drv file (ATerm). `name` is the file's name without hash part and ".drv". Any order of inputs, outputs and
/// environment is read; duplicates, trailing bytes, mixed kinds of outputs and DrvWithVersion are refused.
expected<derivation> parse_derivation(std::string_view aterm, std::string name,
                                      std::string_view store_dir = default_store_dir);

/// Like parse_derivation, with the name taken from the .drv's path; says that path in errors.
expected<derivation> parse_derivation(std::string_view aterm, const store_path& drv_path,
                                      std::string_view store_dir = default_store_dir);

/// The canonical bytes of the .drv file.
std::string print_derivation(const derivation& drv, std::string_view store_dir = default_store_dir);

/// The path of the .drv file with these canonical bytes; throws std::invalid_argument for a name that parse_derivation
/// would have refused.
store_path derivation_path(const derivation& drv, std::string_view store_dir = default_store_dir);

/// The name of an output's store path: `drv_name` for "out", else "<drv_name>-<output>".
std::string output_path_name(std::string_view drv_name, std::string_view output);

/// The derivation's name in a .drv path: the path's name without ".drv".
std::string_view derivation_name(const store_path& drv_path);

/// The name without its version, as Nix splits it: the version begins behind the first '-' that no letter follows,
/// e.g. "zlib" of "zlib-1.3.1"; never empty unless `name` is.
std::string_view name_without_version(std::string_view name);

} // namespace coppice::nix
