#include "messages/admin.hpp"

namespace coppice {

std::string_view to_string(step_life l) {
  switch (l) {
  case step_life::unknown: return "unknown";
  case step_life::asked: return "asked";
  case step_life::wanted: return "wanted";
  case step_life::ready: return "ready";
  case step_life::delayed: return "delayed";
  case step_life::acquiring: return "acquiring";
  case step_life::waiting: return "waiting";
  case step_life::queued: return "queued";
  case step_life::building: return "building";
  case step_life::done: return "done";
  case step_life::failed: return "failed";
  case step_life::not_attempted: return "not_attempted";
  }
  return "?";
}

} // namespace coppice
