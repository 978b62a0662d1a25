#pragma once

#include "nix/derivation.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::nix {

/// A .drv file whose parts are views of its text, for graphs of many derivations: several times cheaper to read than a
/// `derivation`, and to hash. The text must outlive it.
class derivation_view {
public:
  struct input {
    std::string_view base_name; ///< of the .drv
    std::string_view wanted;    ///< the list of output names as it stands in the text
  };

  /// Reads what print_derivation would write of a derivation that parse_derivation accepts, and nothing else;
  /// parse_derivation says why there is none.
  static std::optional<derivation_view> read(std::string_view aterm, std::string name,
                                             std::string_view store_dir = default_store_dir);

  std::string_view text() const { return text_; }
  const std::vector<input>& inputs() const { return inputs_; }
  /// Base names of the input sources.
  const std::vector<std::string_view>& sources() const { return sources_; }
  /// Name, outputs, system, builder, and of the environment the variables named like outputs; nothing else is set.
  const derivation& head() const { return head_; }
  /// The value of an environment variable whose name needs no escapes.
  std::optional<std::string> variable(std::string_view name) const;

  /// The path of the .drv file.
  store_path path(std::string_view store_dir = default_store_dir) const;

  /// The text before the input derivations, and after them.
  std::string_view before_inputs() const { return text_.substr(0, inputs_begin_); }
  std::string_view after_inputs() const { return text_.substr(inputs_end_); }
  /// Appends the text before the input derivations with empty output paths, and that after them with empty variables
  /// where they are named like an output.
  void append_masked_before(std::string& out) const;
  void append_masked_after(std::string& out) const;

private:
  class scanner;
  std::string_view text_;
  derivation head_;
  std::vector<input> inputs_;
  std::vector<std::string_view> sources_;
  std::vector<std::string_view> own_variables_; ///< values, as they stand in the text
  std::size_t inputs_begin_ = 0, inputs_end_ = 0, env_begin_ = 0;
};

/// Calls `each` with every name of derivation_view::input::wanted that needs no escape; false if one does.
template <class Each>
bool for_each_wanted(std::string_view wanted, Each each) {
  for (std::size_t at = 1; at < wanted.size() && wanted[at] == '"';) {
    const auto end = wanted.find('"', at + 1);
    const auto name = wanted.substr(at + 1, end - at - 1);
    if (name.find('\\') != name.npos) return false;
    each(name);
    at = end + 2;
  }
  return true;
}

} // namespace coppice::nix
