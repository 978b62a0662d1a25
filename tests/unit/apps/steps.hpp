#pragma once

#include "apps/common/display.hpp"

#include <string>
#include <vector>

/// What tests of displays share: steps on the node "oak", and a time to begin at.
namespace coppice::app::steps {

using lines = std::vector<std::string>;
inline constexpr display::time_point start{std::chrono::hours{1}};

inline nix::store_path drv(const std::string& name) {
  return nix::store_path::from_base_name(std::string(32, '0') + "-" + name + ".drv").value();
}

inline step_event event(const std::string& name, step_state state, std::int64_t duration_ms = 0,
                        std::string text = {}) {
  step_event e;
  e.drv = drv(name);
  e.state = state;
  e.duration_ms = duration_ms;
  e.text = std::move(text);
  return e;
}

inline running_step running(const std::string& name, std::int64_t elapsed_ms, std::string last_line = {}) {
  running_step r;
  r.drv = drv(name);
  r.elapsed_ms = elapsed_ms;
  r.phase = "buildPhase";
  r.node = {"oak"};
  r.last_line = std::move(last_line);
  return r;
}

} // namespace coppice::app::steps
