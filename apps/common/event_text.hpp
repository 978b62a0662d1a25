#pragma once

#include "messages/events.hpp"

#include <nlohmann/json_fwd.hpp>

#include <string>

/// Events as people and scripts read them. Pure.
namespace coppice::app {

/// "12:30:05  attempt_ended     hello  success, took 1.2 s, 48 KB, token 7 on oak": one line without its end.
std::string event_line(const farm_event& e);

/// {epoch, seq, time, event} and what says something about its kind.
nlohmann::json event_json(const farm_event& e, std::uint64_t stream);

/// The path without its node, and with every name that comes and goes at run time as "*": "/work/workers/*". There are
/// few of them.
std::string actor_label(const std::string& path);

} // namespace coppice::app
