#pragma once

#include "messages/build.hpp"
#include "nix/derivation.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::actors {

/// What is wrong with a build, and whose fault it is.
struct build_fault {
  failure kind;
  std::string reason;
};

/// Why these outputs must not be registered, in Nix's words: they refer to each other in a cycle, or break a rule that
/// the derivation states (allowedReferences and its relatives, outputChecks). Nothing if they may. `inputs` is the
/// closure of the inputs; `outputs` are all of the derivation's, in any order.
std::optional<build_fault> output_fault(const nix::store_path& drv_path, const nix::derivation& drv,
                                        const std::vector<realised_output>& outputs,
                                        const std::vector<path_info>& inputs,
                                        std::string_view store_dir = nix::default_store_dir);

} // namespace coppice::actors
