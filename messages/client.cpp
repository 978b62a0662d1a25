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

std::string_view to_string(step_state s) {
  switch (s) {
    case step_state::planned: return "planned";
    case step_state::queued: return "queued";
    case step_state::building: return "building";
    case step_state::built: return "built";
    case step_state::reused: return "reused";
    case step_state::failed: return "failed";
    case step_state::not_attempted: return "not_attempted";
    case step_state::partial: return "partial";
  }
  return "?";
}

} // namespace coppice
