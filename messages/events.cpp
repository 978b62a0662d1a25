#include "messages/events.hpp"

namespace coppice {

std::string_view to_string(event_kind k) {
  switch (k) {
  case event_kind::node_started: return "node_started";
  case event_kind::request_accepted: return "request_accepted";
  case event_kind::request_ended: return "request_ended";
  case event_kind::step_waiting: return "step_waiting";
  case event_kind::step_started: return "step_started";
  case event_kind::step_ended: return "step_ended";
  case event_kind::attempt_started: return "attempt_started";
  case event_kind::attempt_ended: return "attempt_ended";
  case event_kind::upload_begun: return "upload_begun";
  case event_kind::upload_ended: return "upload_ended";
  case event_kind::upload_partial: return "upload_partial";
  case event_kind::published: return "published";
  case event_kind::substituted: return "substituted";
  case event_kind::actor_started: return "actor_started";
  case event_kind::actor_died: return "actor_died";
  case event_kind::actor_restarted: return "actor_restarted";
  case event_kind::actor_ended: return "actor_ended";
  case event_kind::actor_given_up: return "actor_given_up";
  case event_kind::actor_escalated: return "actor_escalated";
  case event_kind::reconciled: return "reconciled";
  }
  return "?";
}

} // namespace coppice
