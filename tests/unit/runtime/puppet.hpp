#pragma once

#include "tests/support/world.hpp"

#include <algorithm>
#include <string>
#include <vector>

/// An actor that does as it is told, and a diary of what its incarnations did.
namespace coppice::test {

using ping_atom = caf::atom_constant<caf::atom("ping")>;
using crash_atom = caf::atom_constant<caf::atom("crash")>;
using quit_atom = caf::atom_constant<caf::atom("quit")>;
using keep_atom = caf::atom_constant<caf::atom("keep")>;
using forget_atom = caf::atom_constant<caf::atom("forget")>;
using note_atom = caf::atom_constant<caf::atom("note")>;

using puppet_actor =
    caf::typed_actor<caf::replies_to<ping_atom>::with<std::uint64_t>,   // how many pings this incarnation saw
                     caf::replies_to<crash_atom>::with<std::uint64_t>,  // throws
                     caf::reacts_to<quit_atom>,                         // ends normally
                     caf::replies_to<keep_atom>::with<std::uint64_t>,   // is not answered while it lives
                     caf::replies_to<forget_atom>::with<std::uint64_t>, // drops its promise
                     caf::replies_to<note_atom, std::string>::with<std::uint64_t>>;

struct diary {
  std::vector<std::string> lines;
  bool refuse_to_stop = false; ///< puppets ignore the polite exit
  bool fail_to_start = false;  ///< constructors throw
  std::vector<std::string> take() { return std::exchange(lines, {}); }
};

class puppet {
public:
  using interface = puppet_actor;
  static constexpr const char* name = "puppet";
  puppet(rt::self<puppet_actor>* self, std::string called, diary* d)
      : self_(self), called_(std::move(called)), diary_(d) {
    if (diary_->fail_to_start) throw std::runtime_error("cannot start");
    diary_->lines.push_back("+" + called_);
    if (diary_->refuse_to_stop) self_->set_exit_handler([](caf::scheduled_actor*, caf::exit_msg&) {});
  }
  puppet(const puppet&) = delete;
  puppet& operator=(const puppet&) = delete;
  ~puppet() { diary_->lines.push_back("-" + called_); }
  interface::behavior_type make_behavior() {
    return {
        [this](ping_atom) -> caf::result<std::uint64_t> { return ++pings_; },
        [](crash_atom) -> caf::result<std::uint64_t> { throw std::runtime_error("as told"); },
        [this](quit_atom) { self_->quit(); },
        [this](keep_atom) -> caf::result<std::uint64_t> {
          kept_.push_back(self_->make_response_promise<std::uint64_t>());
          return kept_.back();
        },
        [this](forget_atom) -> caf::result<std::uint64_t> { return rt::reply<std::uint64_t>{self_}; },
        [this](note_atom, const std::string& text) -> caf::result<std::uint64_t> {
          diary_->lines.push_back(text);
          self_->doing("noting " + text);
          return ++pings_;
        },
    };
  }

private:
  rt::self<puppet_actor>* self_;
  std::string called_;
  diary* diary_;
  std::uint64_t pings_ = 0;
  std::vector<caf::typed_response_promise<std::uint64_t>> kept_; // plain promises: CAF answers them never (T1)
};

/// Options without jitter, so that tests may state times; many restarts allowed.
inline rt::supervisor_options calm_options(rt::strategy how = rt::strategy::one_for_one) {
  rt::supervisor_options o;
  o.how = how;
  o.restarts.max_restarts = 1000;
  o.restarts.jitter_percent = 0;
  return o;
}

} // namespace coppice::test
