#include "messages/client.hpp"

namespace coppice {

std::string_view to_string(role r) {
  switch (r) {
    case role::observer: return "observer";
    case role::submitter: return "submitter";
    case role::admin: return "admin";
    case role::node: return "node";
  }
  return "?";
}

} // namespace coppice
