#pragma once

#include "nix/derivation.hpp"

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::nix {

/// How deep lists and objects may lie inside each other in structured attributes.
inline constexpr std::size_t attributes_depth_max = 256;

/// What a derivation says of how it is to be built: in its environment, or in one JSON text (__structuredAttrs).
class attributes {
public:
  /// Keeps a reference to `drv`. Fails for a text that is no JSON object or too deep.
  static expected<attributes> of(const derivation& drv);
  static expected<attributes> of(const derivation&& drv) = delete;

  /// The object that the derivation states instead of an environment; null unless it does.
  const nlohmann::json* structured() const { return json_.get(); }

  /// Whether it is true ("1" in an environment), `absent` if it is not stated; fails for anything but a Boolean in
  /// structured attributes.
  expected<bool> flag(std::string_view name, bool absent = false) const;

  /// Its words in the order given, none if it is absent; fails for anything but a list of strings in structured
  /// attributes.
  expected<std::optional<std::vector<std::string>>> words(std::string_view name) const;

private:
  explicit attributes(const derivation& drv) : drv_(&drv) {}
  const derivation* drv_;
  std::shared_ptr<const nlohmann::json> json_;
};

/// The words of a text, separated by white space.
std::vector<std::string> split_words(std::string_view text);

/// The strings of a list; fails, naming it as `name`, for anything else.
expected<std::vector<std::string>> list_of_strings(const nlohmann::json& value, std::string_view name);

} // namespace coppice::nix
