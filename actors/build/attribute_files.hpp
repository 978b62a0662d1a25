#pragma once

#include "actors/build/references_graph.hpp"

#include <nlohmann/json_fwd.hpp>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::actors {

/// Texts by file name, to be put into the build directory.
using build_files = std::map<std::string, std::string>;

inline constexpr const char* attributes_json_file = ".attrs.json";
inline constexpr const char* attributes_shell_file = ".attrs.sh";

/// Both files that a builder finds structured attributes in, with the paths of its outputs and with what
/// exportReferencesGraph asks for. `invalid` if it asks for what is no input.
expected<build_files> structured_files(const nlohmann::json& attributes,
                                       const std::map<std::string, std::string>& outputs, const references_graph& graph,
                                       std::string_view store_dir);

/// Those of these attributes that a bash script can take: strings, whole numbers, Booleans, nulls, and lists and
/// objects of those, under names that are identifiers.
std::string shell_attributes(const nlohmann::json& attributes);

/// What the environment's exportReferencesGraph names: file, path, file, path and so on. `invalid`, in Nix's words, for
/// what is no such list.
expected<build_files> graph_files(const std::string& wanted, const references_graph& graph, std::string_view store_dir);

} // namespace coppice::actors
