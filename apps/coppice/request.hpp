#pragma once

#include "apps/common/evaluate.hpp"
#include "apps/coppice/client.hpp"

#include <optional>
#include <string>

/// From files to a request that the farm accepted, and from its end to links.
namespace coppice::app {

/// What `build` and `submit` take.
struct build_options {
  evaluation what;                      ///< its files are .drv files, or Nix expressions, or both
  std::filesystem::path eval_store_dir; ///< empty: where the .drv file lies
  std::int32_t priority = 0;
  bool keep_going = false;
  bool rebuild = false;
  std::optional<on_disconnect> when_client_leaves;
  bool detach = false;
  bool no_link = false, no_fetch = false;
  std::string link = "result";
  std::filesystem::path store; ///< where fetched outputs go
};

/// Evaluates, reads the closure, uploads what the farm lacks and submits; gives the body that was accepted under `id`.
expected<request_body> submit(client& c, const build_options& options, const request_id& id);

/// Fetches the outputs that a successful request wanted and makes links to them.
expected<void> deliver(client& c, const build_options& options, const request_body& body, const request_result& result);

/// The outputs that a root asked for, "out" first; none if it was not built.
std::vector<realised_output> wanted_outputs(const request_root& root, const request_result& result);

} // namespace coppice::app
