#include "runtime/bridge.hpp"

#include "runtime/bridge_loop.hpp"

#include <fmt/core.h>

namespace coppice::rt {

namespace {
constexpr std::chrono::seconds doing_period{2};
}

bridge::bridge(self<bridge_actor>* self, bridge_options options, std::shared_ptr<const registry> exposed,
               std::shared_ptr<bridge_memory> memory)
    : self_(self), memory_(std::move(memory)) {
  auto me = self_->incarnation();
  bridge_loop::listener l{
      [me](std::string endpoint) { caf::anon_send(me, atom::done_v, std::move(endpoint)); },
      [me](error why) { caf::anon_send(me, atom::failed_v, make_error(why)); },
  };
  loop_ = std::make_unique<bridge_loop>(self_->system(), std::move(options), std::move(exposed), memory_, std::move(l));
}

bridge::~bridge() = default;

bridge::interface::behavior_type bridge::make_behavior() {
  return {
      [this](atom::get_atom) -> caf::result<std::string> {
        if (!endpoint_.empty()) return endpoint_;
        waiting_.emplace_back(self_);
        return waiting_.back();
      },
      [this](atom::done_atom, std::string& endpoint) {
        endpoint_ = std::move(endpoint);
        for (auto& w : std::exchange(waiting_, {}))
          w.deliver(endpoint_);
        self_->later(std::chrono::seconds{0}, atom::tick_v);
      },
      [this](atom::failed_atom, caf::error& why) { self_->quit(std::move(why)); },
      [this](atom::tick_atom) {
        const auto& c = *memory_->counters;
        self_->doing(fmt::format("{}, {} sessions, {} calls, {} bad frames, {} keys denied", endpoint_, c.sessions,
                                 c.requests, c.bad_frames, c.denied_keys));
        self_->later(doing_period, atom::tick_v);
      },
  };
}

} // namespace coppice::rt
