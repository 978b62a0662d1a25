#include "runtime/sessions.hpp"

#include "runtime/log.hpp"

#include <algorithm>

namespace coppice::rt {

namespace {

reply_port& as_port(const caf::strong_actor_ptr& p) {
  return *static_cast<reply_port*>(p->get());
}

/// Greetings and signs of life come alone.
bool may_be_bundled(frame_kind k) {
  return k == frame_kind::request || k == frame_kind::reply || k == frame_kind::error || k == frame_kind::cast;
}

} // namespace

sessions::sessions(const session_options& o, const allow_list& users, std::shared_ptr<const registry> exposed,
                   caf::strong_actor_ptr port, std::shared_ptr<bridge_counters> counters, sender send,
                   std::shared_ptr<rt::mesh> mesh, std::shared_ptr<outbox> out)
    : options_(o)
    , users_(users)
    , exposed_(std::move(exposed))
    , port_(std::move(port))
    , counters_(std::move(counters))
    , send_(std::move(send))
    , mesh_(std::move(mesh))
    , out_(std::move(out)) {}

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
  if (i != sessions_.end() && !i->second.line->alive) { // a newer session of this node took its place
    leave(i);
    i = sessions_.end();
  }
  if (i == sessions_.end()) i = enter(route, *key);
  if (i != sessions_.end()) take(i, *head, *who, parts[1], now);
  return verdict::taken;
}

bool sessions::dial(const std::string& route, const node_id& node, instant now) {
  auto l = std::make_shared<line>(route, request_bytes_max - envelope_bytes_max, line::calls_per_node_max);
  session s{{}, l, peer{options_.peers, l->window, peer::side::dials}, {}, node};
  if (!send_(route, s.peer.greeting(now))) return false;
  sessions_.insert_or_assign(route, std::move(s));
  ++counters_->sessions;
  return true;
}

bool sessions::welcomed(const std::string& route) const {
  auto i = sessions_.find(route);
  return i != sessions_.end() && i->second.peer.open();
}

void sessions::heard_dialled(const std::string& route, const std::vector<std::string_view>& parts, instant now) {
  auto i = sessions_.find(route);
  if (i == sessions_.end()) return;
  const caller who{i->second.expected.value, role::node};
  auto head = parts.size() == 2 ? decode_head(parts[0]) : fail(ec::bad_message, "not two parts");
  if (!head) return count_bad(who.name, head.error().what, now);
  take(i, *head, who, parts[1], now);
}

void sessions::take(table::iterator i, const envelope& head, const caller& who, std::string_view body, instant now) {
  if (head.kind == frame_kind::bundle)
    unbundle(i, who, body, now);
  else
    perform(i, i->second.peer.heard(head, body, now), who, body, now);
}

// Each frame passes what it would pass alone, its key's rate too; only the first has passed that, with the bundle.
void sessions::unbundle(table::iterator i, const caller& who, std::string_view body, instant now) {
  const bool may = !i->second.node.empty() && i->second.peer.version() >= bundles_since_version;
  auto frames = may ? decode_bundle(body) : fail(ec::bad_message, "a bundle, which was not agreed on");
  if (!frames) return count_bad(who.name, frames.error().what, now);
  for (const auto& f : *frames) {
    const auto head = decode_head(f.head);
    const bool dialled = i->second.key.empty();
    if (!dialled && &f != &frames->front() && !within_rate(i->second.key, i->first, head ? &*head : nullptr, now))
      continue;
    if (!head || !may_be_bundled(head->kind))
      count_bad(who.name, head ? "a bundle of what is not said in bundles" : head.error().what, now);
    else if (!perform(i, i->second.peer.heard(*head, f.body, now), who, f.body, now))
      return;
  }
}

bool sessions::within_rate(const std::string& key, const std::string& route, const envelope* head, instant now) {
  auto rate = rate_of(key).take(now);
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
  auto gone = std::move(i->second);
  i = sessions_.erase(i);
  gone.line->alive = false;
  if (auto k = per_key_.find(gone.key); k != per_key_.end() && --k->second == 0) per_key_.erase(k);
  --counters_->sessions;
  if (!gone.node.empty()) {
    log::warn("BRIDGE", "node lost name={}", gone.node.value);
    mesh_->on_down(gone.node, gone.line);
  }
  return i;
}

bool sessions::on_opened(table::iterator i, const peer::opened& said, const caller& who) {
  auto& s = i->second;
  if (who.role != role::node || !mesh_) return true;
  const bool dialled = !s.expected.empty();
  if (dialled && said.node != s.expected) {
    log::error("BRIDGE", "the node that is known here as {} calls itself {}", s.expected.value, said.node.value);
    return false;
  }
  const node_id node{who.name};
  if (node == mesh_->me()) {
    log::error("BRIDGE", "another process has the name and a key of this node name={}", node.value);
    return false;
  }
  s.line->calls_max = line::calls_per_node_max;
  if (!mesh_->on_up(node, said.born, s.line, out_)) {
    refuse(i->first, ec::conflict, "a newer process of " + node.value + " is connected");
    return false;
  }
  s.node = node;
  log::info("BRIDGE", "node connected name={} incarnation={} dialled={}", node.value, said.born.value, dialled);
  return true;
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
    } else if (const auto* a = std::get_if<peer::answered>(&e)) {
      if (i->second.node.empty()) count_bad(who.name, "an answer to nothing", now);
      else if (!mesh_->on_answer(i->second.line, a->head, body)) ++counters_->unread;
    } else if (const auto* said = std::get_if<peer::opened>(&e)) {
      if (!on_opened(i, *said, who)) return leave(i), false;
    } else if (const auto* no = std::get_if<peer::refused>(&e)) {
      log::warn("BRIDGE", "no session with node name={} why={}", i->second.expected.value, to_string(no->why));
      return leave(i), false;
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
  if (head.kind == frame_kind::cast || head.target.starts_with('/')) {
    if (!s.node.empty()) return on_words(s, head, s.node, body, now);
    ++counters_->forbidden;
    if (head.kind == frame_kind::cast) return;
    return no({ec::forbidden, "key " + who.name + " has not role node"});
  }
  const auto whom = s.node.empty() || head.whom.empty() ? who : on_behalf(head, s.node);
  expected<caf::message> message;
  const auto [node, target] = addressed(head.target);
  const bool ours = node == options_.peers.node;
  auto to = ours ? exposed_->find(target, head.method, whom) : relay(node, target, head, whom, body, *message);
  if (to && ours) message = to->method.decode(whom, body);
  if (!to && ours && to.error().code == ec::no_such_target && options_.relayed.contains(target))
    to = relay(options_.relay_to, target, head, whom, body, *message);
  if (!to) {
    if (to.error().code == ec::forbidden) ++counters_->forbidden;
    return no(to.error());
  }
  if (!message) {
    count_bad(who.name, message.error().what, now);
    return no(message.error());
  }
  ++counters_->requests;
  as_port(port_).call(*to, std::move(*message), s.line, head.id, now + options_.call_deadline);
}

caller sessions::on_behalf(const envelope& head, const node_id& from) {
  const auto role = std::min<std::uint8_t>(head.whom_role, static_cast<std::uint8_t>(role::admin));
  return {head.whom.substr(0, key_name_bytes_max) + "@" + from.value, static_cast<coppice::role>(role)};
}

std::pair<node_id, std::string> sessions::addressed(const std::string& target) const {
  const auto slash = target.find('/');
  if (slash == target.npos) return {options_.peers.node, target};
  return {node_id{target.substr(0, slash)}, target.substr(slash + 1)};
}

// A member knows its hub alone, which knows all others. The hub sends nothing back, so nothing goes round in circles.
expected<registry::found> sessions::relay(const node_id& node, const std::string& target, const envelope& head,
                                          const caller& who, std::string_view body, caf::message& message) {
  const bool reached = mesh_ && mesh_->reaches(node);
  const auto& via = reached ? node : options_.relay_to;
  if (!reached && (via.empty() || via == node || !mesh_ || !mesh_->reaches(via)))
    return fail(ec::unavailable, via.empty() ? "no machine " + node.value.substr(0, 100) + " is connected to " + options_.peers.node.value
                                             : via.value + ", which keeps the ledger of this farm, cannot be reached just now");
  message = caf::make_message(
      relay_v, relayed_words{reached ? target : node.value + "/" + target, head.method, std::string{body}, who});
  return registry::found{mesh_->relay(via), {role::observer, nullptr, relay_methods()[0].encode_answer}};
}

void sessions::on_words(session& s, const envelope& head, const node_id& from, std::string_view body, instant now) {
  auto words = mesh_->on_words(from, head, body);
  const bool asks = head.kind == frame_kind::request;
  if (words && asks && !words->answers) words = fail(ec::unsupported, "'" + head.method + "' is not answered");
  if (!words) {
    count_bad(from.value, words.error().what, now);
    if (asks) send_(s.line->route, {error_head(head.id, words.error()), {}}); // ignored: silence will tell
    return;
  }
  ++counters_->requests;
  if (asks)
    as_port(port_).call(words->to, std::move(words->what), s.line, head.id, now + options_.call_deadline);
  else
    words->to.actor->enqueue(nullptr, caf::make_message_id(), std::move(words->what), nullptr);
}

void sessions::deliver(std::vector<answer> all) {
  // by what is the same in each run of a simulation
  std::stable_sort(all.begin(), all.end(),
                   [](auto& a, auto& b) { return a.line != b.line && a.line->route < b.line->route; });
  for (std::span rest{all}; !rest.empty();) {
    const auto& first = rest.front();
    std::size_t n = 0, bytes = 0;
    for (; n < rest.size() && n < bundle_frames_max; ++n) {
      bytes += bundled_bytes(rest[n].what);
      if (n > 0 && (rest[n].line != first.line || rest[n].stream != first.stream || bytes > bundle_bytes_max)) break;
    }
    deliver(rest.first(n));
    rest = rest.subspan(n);
  }
}

void sessions::deliver(std::span<answer> some) {
  const auto line = some.front().line;
  const bool wanted = line->alive && some.front().stream == line->stream;
  const auto i = wanted ? sessions_.find(line->route) : sessions_.end();
  if (i == sessions_.end() || i->second.line != line) {
    counters_->unread += some.size();
    for (auto& x : some)
      if (x.windowed) line->window->give_back(1, *x.windowed);
    return;
  }
  const auto version = i->second.peer.version();
  std::vector<const frame*> frames;
  for (auto& x : some) {
    x.what.head.version = version;
    frames.push_back(&x.what);
  }
  bool sent = true;
  if (some.size() > 1 && !i->second.node.empty() && version >= bundles_since_version)
    sent = send_(line->route, bundle_of(frames));
  else
    for (const auto* f : frames)
      sent = sent && send_(line->route, *f);
  if (!sent) {
    counters_->unread += some.size();
    leave(i);
    return;
  }
  for (auto& x : some)
    if (x.windowed && !perform(i, i->second.peer.sent(*x.windowed), {}, {}, {})) return;
}

void sessions::tick(instant now) {
  as_port(port_).sweep(now);
  if (mesh_) mesh_->sweep();
  for (auto i = sessions_.begin(); i != sessions_.end();) {
    auto next = std::next(i);
    perform(i, i->second.peer.tick(now), {}, {}, now);
    i = next;
  }
}

void sessions::revoke() {
  for (auto i = sessions_.begin(); i != sessions_.end();) {
    if (i->second.key.empty() || users_.find(i->second.key)) {
      ++i;
      continue;
    }
    ++counters_->forbidden;
    refuse(i->first, ec::forbidden, "this key is not let in any more");
    i = leave(i);
  }
  std::erase_if(rates_, [&](const auto& r) { return !users_.find(r.first); });
}

rate_limit& sessions::rate_of(const std::string& key) {
  auto* who = users_.find(key);
  return rates_.try_emplace(key, who && who->role == role::node ? options_.node_rate : options_.rate).first->second;
}

bool sessions::may_connect(const std::string& key, instant now) {
  bool admitted = rate_of(key).take(now) == rate_limit::verdict::admit;
  if (!admitted) ++counters_->limited;
  return admitted;
}

} // namespace coppice::rt
