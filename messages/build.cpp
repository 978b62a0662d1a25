#include "messages/build.hpp"

namespace coppice {

std::string_view to_string(failure f) {
  switch (f) {
    case failure::none: return "success";
    case failure::build_failed: return "build_failed";
    case failure::timed_out: return "timed_out";
    case failure::silent: return "silent";
    case failure::log_limit: return "log_limit";
    case failure::output_limit: return "output_limit";
    case failure::hash_mismatch: return "hash_mismatch";
    case failure::output_rejected: return "output_rejected";
    case failure::unsupported: return "unsupported";
    case failure::unplaceable: return "unplaceable";
    case failure::inputs_missing: return "inputs_missing";
    case failure::store_down: return "store_down";
    case failure::infra: return "infra";
    case failure::poisoned: return "poisoned";
    case failure::cancelled: return "cancelled";
    case failure::dependency_failed: return "dependency_failed";
    case failure::oom: return "oom";
    case failure::pids: return "pids";
    case failure::disk_limit: return "disk_limit";
    case failure::not_deterministic: return "not_deterministic";
  }
  return "?";
}

bool is_transient(failure f) {
  return f == failure::inputs_missing || f == failure::store_down || f == failure::infra || f == failure::cancelled;
}

std::string_view to_string(request_state s) {
  switch (s) {
    case request_state::open: return "open";
    case request_state::succeeded: return "succeeded";
    case request_state::failed: return "failed";
    case request_state::cancelled: return "cancelled";
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
