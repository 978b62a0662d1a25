#include "apps/common/node_name.hpp"

namespace coppice::app {

expected<void> check_node_name(const std::string& name) {
  constexpr std::string_view alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  if (!name.empty() && name.size() <= 64 && name[0] != '.' && name.find_first_not_of(alphabet) == name.npos) return {};
  return fail(ec::invalid, "'" + name + "' is no name for a node: letters, digits, '-', '_' and '.', at most 64");
}

} // namespace coppice::app
