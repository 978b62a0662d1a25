#include "runtime/reply_port.hpp"

#include <caf/actor_system.hpp>
#include <caf/make_actor.hpp>
#include <sys/eventfd.h>

#include <optional>
#include <stdexcept>

namespace coppice::rt {

outbox::outbox() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!event_) throw std::runtime_error("cannot make an eventfd");
}

void outbox::post(answer x) {
  bool first = false;
  {
    std::lock_guard lock{mutex_};
    first = answers_.empty();
    answers_.push_back(std::move(x));
  }
  if (first) wake();
}

std::vector<answer> outbox::take() {
  std::lock_guard lock{mutex_};
  return std::exchange(answers_, {});
}

void outbox::wake() {
  std::uint64_t one = 1;
  [[maybe_unused]] auto n = ::write(event_.get(), &one, sizeof one); // ignored: a full counter is readable too
}

void outbox::rest() {
  std::uint64_t count = 0;
  [[maybe_unused]] auto n = ::read(event_.get(), &count, sizeof count); // ignored: nothing to read is rest enough
}

reply_port::reply_port(caf::actor_config& cfg, std::shared_ptr<outbox> out)
    : caf::monitorable_actor(cfg), out_(std::move(out)) {}

caf::strong_actor_ptr reply_port::make(caf::actor_system& system, std::shared_ptr<outbox> out) {
  caf::actor_config cfg;
  return caf::make_actor<reply_port, caf::strong_actor_ptr>(system.next_actor_id(), system.node(), &system, cfg,
                                                            std::move(out));
}

void reply_port::call(const registry::found& to, caf::message what, const std::shared_ptr<line>& from, std::uint64_t id,
                      instant deadline) {
  open_call call{from, from->stream, id, to.method.encode, deadline};
  std::optional<std::uint64_t> number;
  ++from->calls;
  if (from->calls <= from->calls_max) {
    std::lock_guard lock{mutex_};
    if (calls_.size() < calls_max) {
      number = ++last_;
      calls_.emplace_hint(calls_.end(), *number, call);
    }
  }
  if (!number) return finish(call, {error_head(id, {ec::overloaded, "too many calls are open; repeat later"}), {}});
  to.actor->enqueue(caf::strong_actor_ptr{ctrl()}, caf::make_message_id(*number), std::move(what), nullptr);
}

void reply_port::enqueue(caf::mailbox_element_ptr x, caf::execution_unit*) {
  if (!x->mid.is_response()) return;
  std::optional<open_call> call;
  {
    std::lock_guard lock{mutex_};
    if (auto i = calls_.find(x->mid.request_id().integer_value()); i != calls_.end()) {
      call = std::move(i->second);
      calls_.erase(i);
    }
  }
  if (!call) return; // its deadline came first
  const auto& content = x->content();
  frame f;
  f.head.kind = frame_kind::reply;
  f.head.id = call->id;
  if (content.match_elements<caf::error>()) {
    f.head = error_head(call->id, from_caf(content.get_as<caf::error>(0)));
  } else if (!call->encode(content, f.body)) {
    f.head = error_head(call->id, {ec::crashed, "the actor answered with something else than it promises"});
  } else if (f.body.size() > reply_bytes_max) {
    f = {error_head(call->id, {ec::limit_exceeded, "the answer has " + std::to_string(f.body.size()) + " bytes"}), {}};
  }
  finish(*call, std::move(f));
}

void reply_port::finish(const open_call& call, frame f) {
  --call.line->calls;
  answer a{call.line, call.stream, std::move(f), {}};
  auto bytes = a.what.body.size() + a.what.head.what.size();
  if (call.line->window->take(bytes))
    a.windowed = bytes;
  else
    a.what = {error_head(call.id, {ec::congested, "answers that were not read yet fill the window"}), {}};
  out_->post(std::move(a));
}

void reply_port::sweep(instant now) {
  std::vector<open_call> late;
  {
    std::lock_guard lock{mutex_};
    while (!calls_.empty() && calls_.begin()->second.deadline <= now) {
      late.push_back(std::move(calls_.begin()->second));
      calls_.erase(calls_.begin());
    }
  }
  for (auto& call : late)
    finish(call, {error_head(call.id, {ec::deadline, "no answer in time"}), {}});
}

std::size_t reply_port::open() const {
  std::lock_guard lock{mutex_};
  return calls_.size();
}

} // namespace coppice::rt
