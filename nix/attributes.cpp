#include "nix/attributes.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace coppice::nix {

expected<attributes> attributes::of(const derivation& drv) {
  attributes result{drv};
  const auto text = drv.env.find("__json");
  if (text == drv.env.end()) return result;
  bool too_deep = false;
  auto deep = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || static_cast<std::size_t>(depth) > attributes_depth_max;
    return !too_deep;
  };
  // so that nothing recurses too far afterwards
  auto json = nlohmann::json::parse(text->second, deep, false);
  if (too_deep) return fail("its structured attributes are nested more than ", attributes_depth_max, " deep");
  if (!json.is_object()) return fail("cannot process its __json attribute: it is no JSON object");
  result.json_ = std::make_shared<const nlohmann::json>(std::move(json));
  return result;
}

expected<bool> attributes::flag(std::string_view name, bool absent) const {
  if (!json_) {
    const auto found = drv_->env.find(std::string{name});
    return found == drv_->env.end() ? absent : found->second == "1";
  }
  const auto found = json_->find(name);
  if (found == json_->end()) return absent;
  if (!found->is_boolean()) return fail("its attribute '", name, "' must be a Boolean");
  return found->get<bool>();
}

expected<std::optional<std::vector<std::string>>> attributes::words(std::string_view name) const {
  if (!json_) {
    const auto found = drv_->env.find(std::string{name});
    if (found == drv_->env.end()) return std::nullopt;
    return split_words(found->second);
  }
  const auto found = json_->find(name);
  if (found == json_->end()) return std::nullopt;
  return list_of_strings(*found, name);
}

std::vector<std::string> split_words(std::string_view text) {
  constexpr std::string_view space = " \t\n\r";
  std::vector<std::string> words;
  for (auto at = text.find_first_not_of(space); at != text.npos;) {
    const auto end = std::min(text.find_first_of(space, at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = text.find_first_not_of(space, end);
  }
  return words;
}

expected<std::vector<std::string>> list_of_strings(const nlohmann::json& value, std::string_view name) {
  const bool good = value.is_array() &&
                    std::all_of(value.begin(), value.end(), [](const auto& item) { return item.is_string(); });
  if (!good) return fail("its attribute '", name, "' must be a list of strings");
  return value.get<std::vector<std::string>>();
}

} // namespace coppice::nix
