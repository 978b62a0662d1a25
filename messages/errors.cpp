#include "messages/errors.hpp"

#include <caf/message.hpp>
#include <caf/sec.hpp>
#include <caf/exit_reason.hpp>

namespace coppice {

std::string_view to_string(ec code) {
  switch (code) {
    case ec::none: return "none";
    case ec::crashed: return "crashed";
    case ec::restarted: return "restarted";
    case ec::unavailable: return "unavailable";
    case ec::overloaded: return "overloaded";
    case ec::deadline: return "deadline";
    case ec::too_many_restarts: return "too_many_restarts";
    case ec::shutdown: return "shutdown";
    case ec::no_such_target: return "no_such_target";
    case ec::peer_down: return "peer_down";
    case ec::congested: return "congested";
    case ec::bad_message: return "bad_message";
    case ec::forbidden: return "forbidden";
    case ec::unsupported: return "unsupported";
    case ec::invalid: return "invalid";
    case ec::not_found: return "not_found";
    case ec::conflict: return "conflict";
    case ec::limit_exceeded: return "limit_exceeded";
    case ec::stale: return "stale";
    case ec::not_owner: return "not_owner";
    case ec::session_over: return "session_over";
    case ec::upload_again: return "upload_again";
    case ec::ledger_regressed: return "ledger_regressed";
    case ec::io: return "io";
    case ec::storage_full: return "storage_full";
    case ec::corrupt: return "corrupt";
    case ec::missing: return "missing";
    case ec::locked: return "locked";
  }
  return "unknown_error";
}

std::string to_string(const error& e) {
  std::string text{to_string(e.code)};
  return e.what.empty() ? text : text + ": " + e.what;
}

caf::error make_error(ec code, std::string what) {
  auto number = static_cast<std::uint8_t>(code);
  if (what.empty()) return caf::error{number, error_category};
  return caf::error{number, error_category, caf::make_message(std::move(what))};
}

caf::error make_error(const error& e) { return make_error(e.code, e.what); }

error from_caf(const caf::error& e) {
  if (!e) return {};
  std::string what;
  if (e.context().match_elements<std::string>()) what = e.context().get_as<std::string>(0);
  if (e.category() == error_category) return {static_cast<ec>(e.code()), std::move(what)};
  if (e == caf::sec::request_receiver_down) return {ec::unavailable, "the receiver is down"};
  if (e == caf::sec::request_timeout) return {ec::deadline, "no answer in time"};
  if (e.category() == caf::atom("exit")) return {ec::crashed, "the actor ended"};
  return {ec::crashed, "error " + std::to_string(e.code()) + " of " + caf::to_string(e.category())};
}

bool is(const caf::error& e, ec code) {
  return e && e.category() == error_category && e.code() == static_cast<std::uint8_t>(code);
}

} // namespace coppice
