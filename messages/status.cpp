#include "messages/status.hpp"

namespace coppice {

std::string_view to_string(actor_state s) {
  switch (s) {
    case actor_state::starting: return "starting";
    case actor_state::up: return "up";
    case actor_state::restarting: return "restarting";
    case actor_state::stopped: return "stopped";
  }
  return "?";
}

} // namespace coppice
