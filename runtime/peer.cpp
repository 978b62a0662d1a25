#include "runtime/peer.hpp"

#include "messages/wire.hpp"

#include <algorithm>
#include <utility>

namespace coppice::rt {

rate_limit::verdict rate_limit::take(instant now) {
  if (banned(now)) return verdict::banned;
  if (last_ == instant{}) last_ = now;
  std::chrono::duration<double> passed = now - last_;
  tokens_ = std::min(options_.burst, tokens_ + passed.count() * options_.per_second);
  last_ = now;
  if (tokens_ >= options_.burst / 2) excess_ = 0;
  if (tokens_ >= 1) {
    tokens_ -= 1;
    return verdict::admit;
  }
  ++excess_;
  if (excess_ <= options_.warnings) return verdict::slow_down;
  if (excess_ <= options_.warnings + options_.drops) return verdict::drop;
  banned_until_ = now + options_.ban;
  excess_ = 0;
  return verdict::banned;
}

bool send_window::take(std::size_t bytes) {
  std::lock_guard lock{mutex_};
  if (messages_ >= messages_max || bytes_ + bytes > bytes_max) return false;
  messages_ += 1;
  bytes_ += bytes;
  return true;
}

void send_window::give_back(std::size_t messages, std::size_t bytes) {
  std::lock_guard lock{mutex_};
  messages_ -= messages;
  bytes_ -= bytes;
}

namespace {

/// So much may be on its way before the peer is asked to prove that it reads.
constexpr std::size_t probe_messages = send_window::messages_max / 8;
constexpr std::size_t probe_bytes = send_window::bytes_max / 8;
constexpr wire::limits greeting_limits{.depth_max = 8, .elements_max = 64, .string_bytes_max = 1024};

frame frame_of(frame_kind kind, std::uint64_t id = 0) {
  frame f;
  f.head.kind = kind;
  f.head.id = id;
  return f;
}

} // namespace

peer::effects peer::heard(const envelope& head, std::string_view body, instant now) {
  last_heard_ = now;
  if (side_ == side::dials) {
    if (head.kind == frame_kind::refuse) return {refused{error_of(head)}};
    if (head.kind == frame_kind::welcome && !open()) return welcomed(body);
    if (!open()) return {bad{"neither welcome nor refusal"}};
  } else {
    if (head.kind == frame_kind::hello) return greet(body);
    if (!open()) return refuse(ec::unavailable, "there is no session: say hello first");
  }
  switch (head.kind) {
  case frame_kind::request:
  case frame_kind::cast:
    if (head.version == version_) return {dispatch{head}};
    if (head.kind == frame_kind::cast) return {bad{"a cast of another version than was agreed on"}};
    return {
        send{{error_head(head.id, {ec::unsupported, "version " + std::to_string(head.version) + " was not agreed on"}),
              {}}}};
  case frame_kind::reply:
  case frame_kind::error: return {answered{head}};
  case frame_kind::ping: return {send{frame_of(frame_kind::pong, head.id)}};
  case frame_kind::pong: return pong(head.id);
  default: return {bad{"nobody takes frames of kind " + std::to_string(static_cast<unsigned>(head.kind))}};
  }
}

peer::effects peer::greet(std::string_view body) {
  auto said = wire::decode<hello>(body, greeting_limits);
  if (!said || said->magic != protocol_magic) {
    auto answer = refuse(ec::bad_message, "this is a coppice node, and that was no hello");
    answer.push_back(bad{"not a hello"});
    return answer;
  }
  auto version = std::min(said->max_version, options_.max_version);
  if (version < std::max(said->min_version, options_.min_version)) {
    return refuse(ec::unsupported, "this node speaks versions " + std::to_string(options_.min_version) + " to " +
                                       std::to_string(options_.max_version));
  }
  effects out;
  if (open() && said->stream != stream_) {
    window_->give_back(probed_.messages + unproven_.messages, probed_.bytes + unproven_.bytes);
    probed_ = unproven_ = {};
    probe_.reset();
    out.push_back(forget_calls{});
  }
  version_ = version;
  stream_ = said->stream;
  auto answer = frame_of(frame_kind::welcome);
  answer.body = wire::encode(welcome{version_, options_.node, options_.text, request_bytes_max,
                                     static_cast<std::uint64_t>(options_.ping.count()), options_.born});
  out.push_back(send{std::move(answer)});
  out.push_back(opened{said->incarnation, {said->name}});
  return out;
}

frame peer::greeting(instant now) {
  last_heard_ = now;
  auto f = frame_of(frame_kind::hello);
  f.body = wire::encode(hello{std::string{protocol_magic}, options_.min_version, options_.max_version,
                              options_.node.value, options_.text, 0, options_.born});
  return f;
}

peer::effects peer::welcomed(std::string_view body) {
  auto said = wire::decode<welcome>(body, greeting_limits);
  if (!said) return {refused{said.error()}};
  if (said->version < options_.min_version || said->version > options_.max_version)
    return {refused{{ec::unsupported, "it chose version " + std::to_string(said->version)}}};
  version_ = said->version;
  return {opened{said->incarnation, said->node}};
}

peer::effects peer::refuse(ec code, std::string why) const {
  frame f{error_head(0, {code, std::move(why)}), {}};
  f.head.kind = frame_kind::refuse;
  return {send{std::move(f)}};
}

peer::effect peer::ping() {
  probe_ = ++pings_;
  probed_.messages += std::exchange(unproven_.messages, 0);
  probed_.bytes += std::exchange(unproven_.bytes, 0);
  return send{frame_of(frame_kind::ping, *probe_)};
}

bool peer::probe_due() const {
  return !probe_ && (unproven_.messages >= probe_messages || unproven_.bytes >= probe_bytes);
}

peer::effects peer::pong(std::uint64_t id) {
  if (probe_ != id) return {}; // an answer to a ping that was repeated since
  probe_.reset();
  window_->give_back(probed_.messages, probed_.bytes);
  probed_ = {};
  return probe_due() ? effects{ping()} : effects{};
}

peer::effects peer::sent(std::size_t bytes) {
  unproven_.messages += 1;
  unproven_.bytes += bytes;
  return probe_due() ? effects{ping()} : effects{};
}

peer::effects peer::tick(instant now) {
  if (now - last_heard_ >= options_.ping * options_.liveness) return {dead{}};
  if (!open() || now - last_heard_ < options_.ping || now - last_ping_ < options_.ping) return {};
  last_ping_ = now;
  return {ping()};
}

} // namespace coppice::rt
