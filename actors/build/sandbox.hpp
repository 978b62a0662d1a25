#pragma once

#include "actors/build/attribute_files.hpp"
#include "nix/derivation.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What a builder finds around it, decided without touching anything.
namespace coppice::actors {

/// A host path that every builder sees, read-only.
struct sandbox_path {
  std::string source, target;
  bool optional = false; ///< left out where the host has none
  bool operator==(const sandbox_path&) const = default;
};

/// Reads "SRC", "DST=SRC" or either with "?" at its end; both must be absolute.
expected<sandbox_path> parse_sandbox_path(std::string_view text);
expected<std::vector<sandbox_path>> parse_sandbox_paths(const std::vector<std::string>& texts);

/// What the machine's configuration says of sandboxes.
struct sandbox_settings {
  std::string store_dir{nix::default_store_dir};
  std::vector<sandbox_path> paths{};
  unsigned cores = 1;                              ///< NIX_BUILD_CORES; 0 means as many as there are
  std::map<std::string, std::string> impure_env{}; ///< what fixed-output derivations may ask for by impureEnvVars
  std::string bwrap = "/usr/bin/bwrap";
  std::string fetch_program{}; ///< what builtin:fetchurl is here
  std::string ca_bundle{};     ///< by which that checks HTTPS servers; empty if the machine has none
  std::uint64_t processes_max = 0;                 ///< processes and threads, kept by an rlimit; 0: none
};

/// Where a build directory is inside.
inline constexpr std::string_view sandbox_build_dir = "/build";
/// Inputs of one build that are mounted; the kernel has at most 100,000 mounts in a namespace, and theirs come twice.
inline constexpr std::size_t sandbox_inputs_max = 40'000;

/// Everything about one builder's world that does not depend on where on the host it is set up.
struct sandbox_plan {
  nix::store_path drv;
  std::string store_dir;
  std::string builder;
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;
  build_files files;                            ///< in the build directory
  std::map<std::string, std::string> etc_files; ///< in /etc, by name
  std::vector<sandbox_path> paths;
  std::vector<nix::store_path> inputs;            ///< the closure of the inputs
  std::map<std::string, nix::store_path> outputs; ///< by output name
  bool network = false;                           ///< only for fixed outputs
  bool kvm = false;                               ///< it may use the machine's
  unsigned long personality = 0;
  std::uint64_t processes_max = 0; ///< 0: as many as the machine allows
  std::string bwrap;
};

/// Whether plan_sandbox() needs build_inputs::outputs_of.
bool wants_references_graph(const nix::derivation& drv);

/// Plans the sandbox of a derivation whose inputs have this closure. `unsupported` for what no machine of ours builds,
/// and for more than sandbox_inputs_max inputs; `invalid` for attributes that mean nothing.
expected<sandbox_plan> plan_sandbox(const nix::store_path& drv_path, const nix::derivation& drv,
                                    const build_inputs& inputs, const sandbox_settings& settings);

/// Where on the host one build is set up: all directories exist.
struct sandbox_place {
  std::string build;                   ///< becomes /build
  std::string store;                   ///< becomes the store directory; outputs appear in it
  std::string etc;                     ///< has the etc_files
  std::string inputs_dir;              ///< has the inputs by base name
  std::vector<nix::store_path> inputs; ///< those to be mounted: all but symbolic links, which are in `store` already
};

/// Numbers of the descriptors bwrap is started with.
enum sandbox_fd : int {
  sandbox_arguments_fd = 3, ///< bwrap_arguments()
  sandbox_program_fd = 4,   ///< the program coppice-exec
  sandbox_order_fd = 5,     ///< exec_order()
  sandbox_report_fd = 6     ///< coppice-exec's report: "r" once the sandbox stands, then why the builder did not start
};

/// The arguments of bwrap, each followed by NUL, for its `--args 3`; the command is to follow on the command line.
std::string bwrap_arguments(const sandbox_plan& plan, const sandbox_place& place);

/// What coppice-exec does inside, in its own format.
std::string exec_order(const sandbox_plan& plan, const sandbox_place& place);

} // namespace coppice::actors
