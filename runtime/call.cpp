#include "runtime/call.hpp"

#include "runtime/clock.hpp"
#include "runtime/settings.hpp"

#include <fmt/core.h>
#include <zmq.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <optional>
#include <random>
#include <thread>

namespace coppice::rt {

namespace {

using instant = boot_clock::time_point;
using std::chrono::milliseconds;

constexpr milliseconds retry_first{50}, retry_longest{1'000};

/// Why a session could not be opened at one endpoint.
error no_answer(const endpoint& to) {
  return {ec::peer_down, fmt::format("cannot reach {}: nobody answers", to.address)};
}

std::uint64_t random_number() {
  std::random_device source;
  return std::uint64_t{source()} << 32 | source();
}

} // namespace

expected<void> write_endpoint_file(const std::filesystem::path& path, const endpoint_file& e) {
  auto temporary = path.string() + ".new";
  std::ofstream out{temporary};
  out << fmt::format("listen = {}\nhttp = {}\nserver_key = {}\npid = {}\n", toml_quoted(e.listen), toml_quoted(e.http),
                     toml_quoted(e.server_key), e.pid);
  if (!e.elsewhere.empty()) out << fmt::format("elsewhere = {}\n", toml_quoted(e.elsewhere));
  out.close();
  std::error_code why;
  if (out) std::filesystem::rename(temporary, path, why);
  if (!out || why) return fail(ec::io, fmt::format("cannot write {}: {}", path.string(), why.message()));
  return {};
}

std::vector<endpoint> endpoints_of(const endpoint_file& e) {
  std::vector<endpoint> all{{e.listen, e.server_key}};
  for (const auto& other : e.elsewhere)
    if (other != e.listen) all.push_back({other, e.server_key});
  return all;
}

expected<credentials> try_state_dir(const std::filesystem::path& state_dir) {
  auto where = read_settings<endpoint_file>(state_dir / "endpoint.toml");
  if (!where) return tl::unexpected(where.error());
  auto path = state_dir / "keys" / "client.toml";
  auto key = read_key_file(path);
  if (!key) return tl::unexpected(key.error());
  return credentials{endpoints_of(*where), std::move(*key), std::move(path)};
}

/// One socket to one endpoint, from the dial to the first failure; never used again after it.
class link {
public:
  link(zmq::context_t& context, const credentials& c, const endpoint& to, const connect_options& o)
      : options_(o)
      , credentials_(c)
      , to_(to)
      , socket_(context, zmq::socket_type::dealer)
      , monitor_(context, zmq::socket_type::pair) {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.set(zmq::sockopt::immediate, true);
    socket_.set(zmq::sockopt::sndhwm, 1024);
    socket_.set(zmq::sockopt::rcvhwm, 1024);
    socket_.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(reply_bytes_max + envelope_bytes_max));
    socket_.set(zmq::sockopt::tcp_keepalive, 1);
    socket_.set(zmq::sockopt::curve_serverkey, to.server_key.empty() ? c.key.server_key : to.server_key);
    socket_.set(zmq::sockopt::curve_publickey, c.key.public_key);
    socket_.set(zmq::sockopt::curve_secretkey, c.key.secret_key);
    static std::atomic<std::uint64_t> links{0}; // a name used before may still bring events of the former socket
    auto events = fmt::format("inproc://monitor-{}", ++links);
    zmq_socket_monitor(socket_.handle(), events.c_str(),
                       ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED |
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                           ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH);
    monitor_.set(zmq::sockopt::linger, 0);
    monitor_.connect(events);
  }
  ~link() { zmq_socket_monitor(socket_.handle(), nullptr, 0); }
  link(const link&) = delete;
  link& operator=(const link&) = delete;

  /// Dials and greets; gives up at `until`.
  expected<welcome> open(std::uint64_t stream, instant until) {
    try {
      socket_.connect(to_.address);
    } catch (const zmq::error_t& e) {
      return fail(ec::invalid, fmt::format("cannot dial '{}': {}", to_.address, e.what()));
    }
    while (!secure_) {
      if (auto why = failure()) return tl::unexpected(*why);
      if (boot_clock::now() >= until) return tl::unexpected(connected_ ? broken_off() : no_answer(to_));
      wait(until);
      read_events();
    }
    frame f;
    f.head.kind = frame_kind::hello;
    f.body = wire::encode(hello{std::string{protocol_magic}, protocol_version_min, protocol_version_max, options_.name,
                                options_.text, stream});
    if (!send(f)) return fail(ec::peer_down, fmt::format("{} hung up", to_.address));
    auto answer = next(until);
    if (!answer) return tl::unexpected(answer.error());
    if (answer->head.kind == frame_kind::refuse) return tl::unexpected(error_of(answer->head));
    if (answer->head.kind != frame_kind::welcome) return fail(ec::bad_message, to_.address + " did not say welcome");
    return wire::decode<welcome>(answer->body);
  }

  bool send(const frame& f) {
    auto head = encode_head(f.head);
    if (!socket_.send(zmq::buffer(head), zmq::send_flags::sndmore | zmq::send_flags::dontwait)) return false;
    return socket_.send(zmq::buffer(f.body), zmq::send_flags::dontwait).has_value();
  }

  /// The next frame that is no heartbeat; `deadline` at `until`, `peer_down` when the node is gone or silent.
  expected<frame> next(instant until) {
    auto heard = boot_clock::now();
    auto pinged = heard;
    for (;;) {
      while (auto f = receive()) {
        heard = boot_clock::now();
        if (f->head.kind == frame_kind::ping) {
          f->head.kind = frame_kind::pong;
          send(*f); // ignored: if it cannot be sent the node is gone, which will be noticed
        } else if (f->head.kind != frame_kind::pong) {
          return std::move(*f);
        }
      }
      read_events();
      if (auto why = failure()) return tl::unexpected(*why);
      auto now = boot_clock::now();
      if (now >= until) return fail(ec::deadline, fmt::format("{} gave no answer in time", to_.address));
      if (now - heard >= options_.ping * options_.liveness) {
        return fail(ec::peer_down, fmt::format("{} has gone silent", to_.address));
      }
      if (now - std::max(heard, pinged) >= options_.ping) {
        frame ping;
        ping.head.kind = frame_kind::ping;
        send(ping); // ignored: silence will tell
        pinged = now;
      }
      wait(std::min<instant>(until, now + options_.ping));
    }
  }

private:
  void wait(instant until) {
    auto left = std::chrono::ceil<milliseconds>(until - boot_clock::now());
    zmq::pollitem_t items[] = {{socket_.handle(), 0, ZMQ_POLLIN, 0}, {monitor_.handle(), 0, ZMQ_POLLIN, 0}};
    try {
      zmq::poll(items, std::size(items), std::max(left, milliseconds{0}));
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
    }
  }

  /// Nothing if there is none; frames that make no sense are passed over.
  std::optional<frame> receive() {
    for (;;) {
      std::vector<zmq::message_t> parts(1);
      if (!socket_.recv(parts[0], zmq::recv_flags::dontwait)) return {};
      while (parts.back().more()) {
        zmq::message_t part;
        if (!socket_.recv(part, zmq::recv_flags::dontwait)) return {};
        if (parts.size() < 3)
          parts.push_back(std::move(part));
        else if (!part.more())
          break;
      }
      if (parts.size() != 2) continue;
      auto head = decode_head(parts[0].to_string_view());
      if (head) return frame{std::move(*head), parts[1].to_string()};
    }
  }

  void read_events() {
    zmq::message_t event, address;
    while (monitor_.recv(event, zmq::recv_flags::dontwait)) {
      if (event.more()) static_cast<void>(monitor_.recv(address)); // its parts come together
      std::uint16_t what = 0;
      std::memcpy(&what, event.data(), sizeof what);
      if (what == ZMQ_EVENT_CONNECTED)
        connected_ = true;
      else if (what == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
        secure_ = true;
      else if (what == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        denied_ = true;
      else
        lost_ = true;
    }
  }

  std::optional<error> failure() const {
    if (denied_) {
      return error{ec::forbidden, fmt::format("node at {} refused the key {} (file {})", to_.address,
                                              credentials_.key.name, credentials_.key_path.string())};
    }
    if (!lost_) return {};
    if (secure_) return error{ec::peer_down, fmt::format("{} hung up", to_.address)};
    return connected_ ? broken_off() : no_answer(to_);
  }

  error broken_off() const {
    return {ec::peer_down,
            fmt::format("{} broke off the handshake: it does not have the key that is server_key in {}, or "
                        "is no coppice node",
                        to_.address, credentials_.key_path.string())};
  }

  const connect_options& options_;
  const credentials& credentials_;
  const endpoint& to_;
  zmq::socket_t socket_, monitor_;
  bool connected_ = false, secure_ = false, denied_ = false, lost_ = false;
};

struct connection::impl {
  credentials who;
  connect_options options;
  zmq::context_t context{1};
  std::optional<link> wire;
  welcome node;
  std::size_t current = 0; ///< index of the endpoint in use
  std::uint64_t last_id = 0;

  impl(credentials c, connect_options o) : who(std::move(c)), options(std::move(o)) {}

  /// Tries each endpoint once, the present one first.
  expected<void> open(instant until) {
    std::vector<error> errors;
    for (std::size_t i = 0; i < who.endpoints.size(); ++i) {
      const auto& to = who.endpoints[current];
      wire.emplace(context, who, to, options);
      auto now = boot_clock::now();
      auto said = wire->open(random_number(), std::min<instant>(until, now + options.connect_timeout));
      if (said) {
        node = std::move(*said);
        return {};
      }
      errors.push_back(said.error());
      wire.reset();
      current = (current + 1) % who.endpoints.size();
    }
    return tl::unexpected(summary(errors));
  }

  /// The most telling code, and every text.
  static error summary(const std::vector<error>& errors) {
    error all{ec::peer_down, ""};
    for (const auto& e : errors) {
      if (all.code == ec::peer_down && e.code != ec::deadline) all.code = e.code;
      all.what += (all.what.empty() ? "" : "; ") + e.what;
    }
    if (errors.empty()) all.what = "no node is known: no endpoint is given";
    return all;
  }

  /// One try on the present link; peer_down and unavailable-without-session mean that another link may do better.
  expected<std::string> ask(const frame& question, instant until, bool& again) {
    again = true;
    if (!wire->send(question)) return fail(ec::peer_down, who.endpoints[current].address + " takes nothing");
    for (;;) {
      auto f = wire->next(until);
      if (!f) {
        again = f.error().code == ec::peer_down;
        return tl::unexpected(f.error());
      }
      if (f->head.kind == frame_kind::refuse) {
        auto why = error_of(f->head);
        again = why.code == ec::unavailable; // the node has forgotten us: a new hello is all it wants
        wire.reset();                        // there is no session on this one any more
        return tl::unexpected(why);
      }
      if (f->head.id != question.head.id) continue; // the answer to a call that was given up
      again = false;
      if (f->head.kind == frame_kind::error) return tl::unexpected(error_of(f->head));
      if (f->head.kind == frame_kind::reply) return std::move(f->body);
    }
  }
};

connection::connection(std::unique_ptr<impl> i) : impl_(std::move(i)) {}
connection::connection(connection&&) noexcept = default;
connection& connection::operator=(connection&&) noexcept = default;
connection::~connection() = default;

const welcome& connection::peer() const {
  return impl_->node;
}
const endpoint& connection::where() const {
  return impl_->who.endpoints[impl_->current];
}

expected<connection> connection::connect(credentials c, connect_options o) {
  for (const auto& to : c.endpoints) {
    if (is_key(to.server_key) || (to.server_key.empty() && is_key(c.key.server_key))) continue;
    return fail(ec::invalid,
                fmt::format("no server_key is known for {}: give it in {}", to.address, c.key_path.string()));
  }
  try {
    auto i = std::make_unique<impl>(std::move(c), std::move(o));
    if (auto ok = i->open(instant::max()); !ok) return tl::unexpected(ok.error());
    return connection{std::move(i)};
  } catch (const zmq::error_t& e) {
    return fail(ec::invalid, fmt::format("cannot dial: {}", e.what()));
  }
}

expected<std::string> connection::call_bytes(std::string_view target, std::string_view method, std::string body,
                                             milliseconds timeout) {
  auto& i = *impl_;
  if (body.size() > request_bytes_max - envelope_bytes_max) {
    return fail(ec::limit_exceeded, fmt::format("a message of {} bytes for {}.{}", body.size(), target, method));
  }
  auto until = boot_clock::now() + timeout;
  frame question;
  question.head.kind = frame_kind::request;
  question.head.id = ++i.last_id;
  question.head.target = target;
  question.head.method = method;
  question.body = std::move(body);
  for (auto pause = retry_first;; pause = std::min(pause * 2, retry_longest)) {
    error why{ec::deadline, "no time left"};
    try {
      auto opened = i.wire ? expected<void>{} : i.open(until);
      bool again = true;
      if (opened) {
        question.head.version = i.node.version;
        auto answer = i.ask(question, until, again);
        if (answer) return answer;
        opened = tl::unexpected(answer.error());
        if (again) i.wire.reset();
      }
      why = opened.error();
      if (!again || (why.code != ec::peer_down && why.code != ec::unavailable)) return tl::unexpected(why);
    } catch (const zmq::error_t& e) {
      i.wire.reset();
      why = {ec::peer_down, e.what()};
    }
    if (boot_clock::now() + pause >= until) return tl::unexpected(why);
    std::this_thread::sleep_for(pause);
  }
}

} // namespace coppice::rt
