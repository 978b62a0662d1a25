#include "runtime/sessions.hpp"

#include "runtime/log.hpp"

namespace coppice::rt {

namespace {

reply_port& as_port(const caf::strong_actor_ptr& p) {
  return *static_cast<reply_port*>(p->get());
}

} // namespace

sessions::sessions(const session_options& o, const allow_list& users, std::shared_ptr<const registry> exposed,
                   caf::strong_actor_ptr port, std::shared_ptr<bridge_counters> counters, sender send)
    : options_(o)
    , users_(users)
    , exposed_(std::move(exposed))
    , port_(std::move(port))
    , counters_(std::move(counters))
    , send_(std::move(send)) {}

sessions::~sessions() {
  while (!sessions_.empty())
    leave(sessions_.begin());
}

sessions::verdict sessions::heard(const std::string& route, const std::optional<std::string>& key,
                                  const std::vector<std::string_view>& parts, instant now) {
  if (!key) return verdict::intruder;
  auto i = sessions_.find(route);
  const caller* who = users_.find(*key);
  if (!who) { // revoked since its handshake; the connection itself cannot be closed from here
    ++counters_->forbidden;
    if (i != sessions_.end()) refuse(route, ec::forbidden, "this key is not let in any more");
    if (i != sessions_.end()) leave(i);
    return verdict::taken;
  }
  auto head = parts.size() == 2 ? decode_head(parts[0]) : fail(ec::bad_message, "not two parts");
  if (!within_rate(*key, route, head ? &*head : nullptr, now)) return verdict::taken;
  if (!head) {
    count_bad(who->name, head.error().what, now);
    return verdict::taken;
  }
  if (i != sessions_.end() && i->second.key != *key) { // another connection took this routing id
    leave(i);
    i = sessions_.end();
  }
  if (i == sessions_.end()) i = enter(route, *key);
  if (i != sessions_.end()) perform(i, i->second.peer.heard(*head, parts[1], now), *who, parts[1], now);
  return verdict::taken;
}

bool sessions::within_rate(const std::string& key, const std::string& route, const envelope* head, instant now) {
  auto rate = rates_.try_emplace(key, options_.rate).first->second.take(now);
  if (rate == rate_limit::verdict::admit) return true;
  ++counters_->limited;
  if (rate == rate_limit::verdict::slow_down && head && head->kind == frame_kind::request) {
    send_(route, {error_head(head->id, {ec::overloaded, "slow down: this key sends too much"}), {}});
  }
  return false;
}

sessions::table::iterator sessions::enter(const std::string& route, const std::string& key) {
  auto& of_key = per_key_[key];
  if (sessions_.size() >= options_.sessions_max || of_key >= options_.sessions_per_key_max) {
    refuse(route, ec::overloaded, "too many connections");
    return sessions_.end();
  }
  auto l = std::make_shared<line>(route);
  auto i = sessions_.emplace(route, session{key, l, peer{options_.peers, l->window}}).first;
  ++of_key;
  ++counters_->sessions;
  return i;
}

sessions::table::iterator sessions::leave(table::iterator i) {
  i->second.line->alive = false;
  if (auto k = per_key_.find(i->second.key); --k->second == 0) per_key_.erase(k);
  --counters_->sessions;
  return sessions_.erase(i);
}

void sessions::refuse(const std::string& route, ec code, std::string why) {
  frame f{error_head(0, {code, std::move(why)}), {}};
  f.head.kind = frame_kind::refuse;
  send_(route, f); // ignored: who cannot be reached needs no refusal
}

void sessions::count_bad(const std::string& key, std::string_view why, instant now) {
  ++counters_->bad_frames;
  if (now < next_bad_line_) return; // counted, but no flood of them may push other lines out of the log
  next_bad_line_ = now + std::chrono::seconds{1};
  log::warn("BRIDGE", "bad frame dropped key={} why={}", key, why);
}

/// False if the session is over.
bool sessions::perform(table::iterator i, const peer::effects& effects, const caller& who, std::string_view body,
                       instant now) {
  for (const auto& e : effects) {
    if (const auto* x = std::get_if<peer::send>(&e)) {
      if (!send_(i->first, x->what)) return leave(i), false;
    } else if (const auto* call = std::get_if<peer::dispatch>(&e)) {
      dispatch(i->second, call->head, who, body, now);
    } else if (std::holds_alternative<peer::forget_calls>(e)) {
      ++i->second.line->stream;
    } else if (const auto* bad = std::get_if<peer::bad>(&e)) {
      count_bad(who.name, bad->why, now);
    } else if (std::holds_alternative<peer::dead>(e)) {
      return leave(i), false;
    }
  }
  return true;
}

void sessions::dispatch(session& s, const envelope& head, const caller& who, std::string_view body, instant now) {
  auto no = [&](const error& e) {
    send_(s.line->route, {error_head(head.id, e), {}}); // ignored: the next frame to it will tell that it is gone
  };
  auto to = exposed_->find(head.target, head.method, who);
  if (!to) {
    if (to.error().code == ec::forbidden) ++counters_->forbidden;
    return no(to.error());
  }
  auto message = to->method.decode(who, body);
  if (!message) {
    count_bad(who.name, message.error().what, now);
    return no(message.error());
  }
  ++counters_->requests;
  as_port(port_).call(*to, std::move(*message), s.line, head.id, now + options_.call_deadline);
}

void sessions::deliver(answer x) {
  bool wanted = x.line->alive && x.stream == x.line->stream;
  auto i = wanted ? sessions_.find(x.line->route) : sessions_.end();
  if (i == sessions_.end() || i->second.line != x.line) {
    ++counters_->unread;
    if (x.windowed) x.line->window->give_back(1, *x.windowed);
    return;
  }
  if (!send_(x.line->route, x.what)) {
    ++counters_->unread;
    leave(i);
  } else if (x.windowed) {
    perform(i, i->second.peer.sent(*x.windowed), {}, {}, {});
  }
}

void sessions::tick(instant now) {
  as_port(port_).sweep(now);
  for (auto i = sessions_.begin(); i != sessions_.end();) {
    auto next = std::next(i);
    perform(i, i->second.peer.tick(now), {}, {}, now);
    i = next;
  }
}

void sessions::revoke() {
  for (auto i = sessions_.begin(); i != sessions_.end();) {
    if (users_.find(i->second.key)) {
      ++i;
      continue;
    }
    ++counters_->forbidden;
    refuse(i->first, ec::forbidden, "this key is not let in any more");
    i = leave(i);
  }
  std::erase_if(rates_, [&](const auto& r) { return !users_.find(r.first); });
}

bool sessions::may_connect(const std::string& key, instant now) {
  bool admitted = rates_.try_emplace(key, options_.rate).first->second.take(now) == rate_limit::verdict::admit;
  if (!admitted) ++counters_->limited;
  return admitted;
}

} // namespace coppice::rt
