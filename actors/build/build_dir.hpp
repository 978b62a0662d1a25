#pragma once

#include "actors/build/output_checks.hpp"
#include "actors/build/sandbox.hpp"
#include "runtime/process.hpp"

#include <filesystem>
#include <memory>

/// The scratch tree of one build. Everything here blocks: call it on pool threads.
namespace coppice::actors {

/// A program that belongs to ours, e.g. coppice-exec: beside our own, else in ../libexec/coppice from there.
std::filesystem::path find_program(const std::string& program_name);

struct build_dir_config {
  std::filesystem::path dir;        ///< made anew; on the local store's file system, so that outputs can be renamed
  std::filesystem::path inputs_dir; ///< has every input by its base name
  std::filesystem::path etc_dir;    ///< gets what builds have in /etc, once for all that have the same; made if absent
  std::filesystem::path exec_program = find_program("coppice-exec");
  std::optional<rt::process_user> run_as{}; ///< owns the tree; as root, builders should not be root outside
  std::shared_ptr<rt::cgroup> group{};
};

class build_dir {
public:
  /// Makes the tree: `build` and `store` in config.dir. `missing` if an input or a sandbox path is not there.
  static expected<std::shared_ptr<build_dir>> make(sandbox_plan plan, build_dir_config config);
  build_dir(const build_dir&) = delete;
  build_dir& operator=(const build_dir&) = delete;

  /// What runs the builder; once only, since descriptors are read to their end.
  rt::process_spec process(const rt::process_limits& limits) const;

  /// Where the outputs are, by output name; build_failed for the first that the builder did not make. What they are
  /// made of is not looked at.
  tl::expected<std::map<std::string, std::filesystem::path>, build_fault> collect_outputs() const;

  /// The text with the outputs' paths as the builder knew them, not as they are here.
  std::string as_inside(std::string text) const;

  /// Ends what still runs in the control group and removes the tree.
  expected<void> remove() const;

  const sandbox_plan& plan() const { return plan_; }

private:
  build_dir(sandbox_plan plan, build_dir_config config) : plan_(std::move(plan)), config_(std::move(config)) {}
  expected<void> set_up();
  expected<void> make_dir(const std::filesystem::path& path, mode_t mode) const;
  expected<void> write(const std::filesystem::path& path, const std::string& text) const;
  expected<std::filesystem::path> etc() const;
  expected<std::vector<nix::store_path>> link_inputs() const;

  sandbox_plan plan_;
  build_dir_config config_;
  std::shared_ptr<rt::unique_fd> arguments_, program_, order_;
};

} // namespace coppice::actors
