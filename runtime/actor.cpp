#include "runtime/actor.hpp"

#include <caf/exit_reason.hpp>
#include <caf/mailbox_element.hpp>
#include <caf/system_messages.hpp>

#include <stdexcept>

namespace coppice::rt {

namespace {
thread_local const birth* birth_in_progress = nullptr;
}

namespace detail {

birth_scope::birth_scope(const birth& b) {
  birth_in_progress = &b;
}

birth_scope::~birth_scope() {
  birth_in_progress = nullptr;
}

bool is_crash_order(const caf::mailbox_element& x) {
  return x.content().size() == 1 && x.content().match_elements<crash_atom>();
}

std::string message_kind(const caf::mailbox_element& x) {
  const auto& content = x.content();
  if (content.empty() || !content.match_element<caf::atom_value>(0)) return {};
  return caf::to_string(content.get_as<caf::atom_value>(0));
}

caf::error crash_error(std::exception_ptr& p, const std::string& message_kind) {
  std::string text = message_kind.empty() ? "" : "in '" + message_kind + "': ";
  try {
    std::rethrow_exception(p);
  } catch (const std::exception& e) {
    return make_error(ec::crashed, text + e.what());
  } catch (...) {
    return make_error(ec::crashed, text + "unknown exception");
  }
}

} // namespace detail

void vitals::set_doing(std::string text) {
  if (text.size() > doing_bytes_max) text.resize(doing_bytes_max);
  std::lock_guard lock{mutex_};
  doing_ = std::move(text);
}

std::string vitals::doing() const {
  std::lock_guard lock{mutex_};
  return doing_;
}

instrumented::instrumented() {
  if (auto b = std::exchange(birth_in_progress, nullptr)) birth_ = *b;
}

void instrumented::announce_up(const caf::strong_actor_ptr& me) {
  if (birth_.up) birth_.up(me);
  birth_.up = nullptr;
}

void instrumented::announce_doom() {
  if (auto doomed = std::exchange(birth_.doomed, nullptr)) doomed();
}

void send_exit(const caf::strong_actor_ptr& to, caf::error reason) {
  if (!to) return;
  to->get()->enqueue(caf::make_mailbox_element(nullptr, caf::make_message_id(caf::message_priority::high), {},
                                               caf::exit_msg{to->address(), std::move(reason)}),
                     nullptr);
}

std::string describe_reason(const caf::error& reason) {
  if (!reason || reason == caf::exit_reason::normal) return "normal";
  if (reason == caf::exit_reason::user_shutdown) return "shutdown";
  if (reason == caf::exit_reason::kill) return "killed";
  if (reason == caf::exit_reason::unreachable) return "unreachable: nobody held a handle";
  return to_string(from_caf(reason));
}

} // namespace coppice::rt
