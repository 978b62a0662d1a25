#include "actors/build/attribute_files.hpp"

#include "nix/attributes.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace coppice::actors {
namespace {

using nlohmann::json;

constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
constexpr std::string_view letters_and_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

bool is_name(std::string_view text, std::string_view more) {
  return !text.empty() && letters.find(text[0]) != letters.npos && std::all_of(text.begin(), text.end(), [&](char c) {
    return letters_and_digits.find(c) != letters.npos || more.find(c) != more.npos;
  });
}

std::string shell_quoted(std::string_view text) {
  std::string out = "'";
  for (char c : text)
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  return out + "'";
}

/// As Nix 2.8 has it: by way of `float`, and cut to 32 bits.
std::optional<std::string> shell_number(const json& value) {
  const auto rounded = value.get<float>();
  if (std::ceil(rounded) != rounded) return std::nullopt;
  using limits = std::numeric_limits<std::int32_t>;
  if (!value.is_number_float()) return std::to_string(static_cast<std::int32_t>(value.get<std::uint64_t>()));
  const auto exact = value.get<double>();
  const bool fits = exact > limits::min() - 1.0 && exact < limits::max() + 1.0;
  return std::to_string(fits ? static_cast<std::int32_t>(exact) : limits::min());
}

std::optional<std::string> shell_word(const json& value) {
  if (value.is_string()) return shell_quoted(value.get_ref<const std::string&>());
  if (value.is_number()) return shell_number(value);
  if (value.is_null()) return "''";
  if (value.is_boolean()) return value.get<bool>() ? "1" : "";
  return std::nullopt;
}

/// The elements of a list or an object; none if one of them cannot be told.
std::optional<std::string> shell_elements(const json& value) {
  std::string out;
  for (const auto& [key, item] : value.items()) {
    const auto word = shell_word(item);
    if (!word) return std::nullopt;
    if (value.is_object()) out += "[" + shell_quoted(key) + "]=";
    out += *word + " ";
  }
  return out;
}

expected<std::set<nix::store_path>> export_roots(const json& wanted, std::string_view store_dir) {
  const auto list = wanted.is_string() ? json::array({wanted}) : wanted;
  auto texts = nix::list_of_strings(list, "exportReferencesGraph");
  if (!texts) return fail(ec::invalid, texts.error().what);
  std::set<nix::store_path> roots;
  for (const auto& text : *texts) {
    auto path = nix::store_path::parse(text, store_dir);
    if (!path) return fail(ec::invalid, "'exportReferencesGraph' contains a non-store path '" + text + "'");
    roots.insert(std::move(*path));
  }
  return roots;
}

} // namespace

std::string shell_attributes(const json& attributes) {
  std::string out;
  for (const auto& [name, value] : attributes.items()) {
    if (!is_name(name, "")) continue;
    if (const auto word = shell_word(value))
      out += "declare " + name + "=" + *word + "\n";
    else if (const auto elements = value.is_structured() ? shell_elements(value) : std::nullopt)
      out += std::string{"declare "} + (value.is_array() ? "-a " : "-A ") + name + "=(" + *elements + ")\n";
  }
  return out;
}

expected<build_files> structured_files(const json& attributes, const std::map<std::string, std::string>& outputs,
                                       const references_graph& graph, std::string_view store_dir) {
  auto complete = attributes;
  complete["outputs"] = outputs;
  if (auto graphs = attributes.find("exportReferencesGraph"); graphs != attributes.end() && graphs->is_object())
    for (const auto& [name, wanted] : graphs->items()) {
      auto described =
          export_roots(wanted, store_dir).and_then([&](const auto& roots) { return graph.describe(roots); });
      if (!described) return tl::unexpected(described.error());
      complete[name] = std::move(*described);
    }
  return build_files{{attributes_json_file, complete.dump()}, {attributes_shell_file, shell_attributes(complete)}};
}

expected<build_files> graph_files(const std::string& wanted, const references_graph& graph,
                                  std::string_view store_dir) {
  const auto words = nix::split_words(wanted);
  if (words.size() % 2 != 0)
    return fail(ec::invalid, "odd number of tokens in 'exportReferencesGraph': '" + wanted + "'");
  build_files files;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    const auto& [name, text] = std::tie(words[i], words[i + 1]);
    if (!is_name(name, ".-")) return fail(ec::invalid, "invalid file name '" + name + "' in 'exportReferencesGraph'");
    // a path below a store path stands for that
    const auto path = nix::store_path::parse(text.substr(0, text.find('/', store_dir.size() + 1)), store_dir);
    if (!path) return fail(ec::invalid, "'exportReferencesGraph' contains a non-store path '" + text + "'");
    auto registration = graph.registration({*path});
    if (!registration) return tl::unexpected(registration.error());
    files[name] = std::move(*registration);
  }
  return files;
}

} // namespace coppice::actors
