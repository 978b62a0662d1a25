#include "runtime/bridge_loop.hpp"

#include "runtime/log.hpp"

#include <pthread.h>
#include <zmq.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <random>

namespace coppice::rt {

namespace {

constexpr const char* zap_domain = "coppice";
constexpr int batch_max = 1000; ///< messages taken from one socket before the others have their turn
constexpr std::chrono::milliseconds tick_period{100};
constexpr std::chrono::milliseconds allow_list_period{300};

/// The ZAP responder and the rest of the node can only be reached through sockets that are set like this.
void set_common(zmq::socket_t& s) {
  s.set(zmq::sockopt::linger, 0);
  // a line's window and its heartbeats fit, so that a socket which takes no more is one whose peer is gone
  s.set(zmq::sockopt::sndhwm, static_cast<int>(2 * send_window::messages_max));
  s.set(zmq::sockopt::rcvhwm, 1024);
  s.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(request_bytes_max));
  s.set(zmq::sockopt::handshake_ivl, 5000);
  s.set(zmq::sockopt::tcp_keepalive, 1);
  s.set(zmq::sockopt::tcp_keepalive_idle, 30);
}

std::string text_of(const zmq::message_t& m) {
  return {static_cast<const char*>(m.data()), m.size()};
}

/// One message of several parts; more than `parts_max` of them are read and forgotten but counted.
struct multipart {
  static constexpr std::size_t parts_max = 8;
  std::vector<zmq::message_t> parts;
  std::size_t count = 0;
};

/// False if there is none.
bool receive(zmq::socket_t& s, multipart& m) {
  m.parts.clear();
  m.count = 0;
  bool more = true;
  while (more) {
    zmq::message_t part;
    if (!s.recv(part, zmq::recv_flags::dontwait)) return false; // parts of a message come all at once
    more = part.more();
    if (m.count++ < multipart::parts_max) m.parts.push_back(std::move(part));
  }
  return true;
}

/// What the ZAP handler said of the sender; nothing if no handler let this connection in.
std::optional<std::string> user_of(zmq::message_t& m) {
  const char* user = zmq_msg_gets(m.handle(), "User-Id");
  if (!user || *user == '\0') return {};
  return user;
}

/// Where the node can dial itself.
std::string local_form(std::string endpoint) {
  for (auto [any, local] : {std::pair{"//0.0.0.0:", "//127.0.0.1:"}, std::pair{"//[::]:", "//[::1]:"}}) {
    if (auto at = endpoint.find(any); at != std::string::npos) endpoint.replace(at, std::strlen(any), local);
  }
  return endpoint;
}

} // namespace

/// The socket to a node that is dialled: a new one for each try, or what an old one still holds would reach the node's
/// next process.
class dialled {
public:
  dialled(zmq::context_t& context, const bridge_options& o, node_address to)
      : context_(context)
      , options_(o)
      , to_(std::move(to))
      , patience_(std::max(o.dial_patience / std::max<std::ptrdiff_t>(1, std::ssize(to_.endpoints)), o.dial_patience_min))
      , pause_(o.redial_first) {}

  const std::string& route() const { return to_.node.value; } // a ROUTER's own begin with a zero byte
  zmq::socket_t* socket() { return socket_ ? &*socket_ : nullptr; }
  void tick(sessions& all, instant now) {
    if (socket_ && greeted_ && all.welcomed(route())) {
      pause_ = options_.redial_first;
      began_ = now;
    } else if (socket_ && greeted_ && !all.has(route())) {
      hang_up(now);
    } else if (socket_ && now - began_ > patience_) {
      if (round_over() && !std::exchange(complained_, true))
        log::warn("BRIDGE", "node does not answer, dialled again and again name={} endpoints={}", to_.node.value,
                  fmt::join(to_.endpoints, ","));
      hang_up(now);
    } else if (socket_ && !greeted_) {
      greeted_ = all.dial(route(), to_.node, now);
    } else if (!socket_ && now >= next_) {
      open(now);
    }
    if (socket_ && all.welcomed(route())) complained_ = false;
  }
  bool send(const frame& f) {
    auto head = encode_head(f.head);
    if (!socket_ || !socket_->send(zmq::buffer(head), zmq::send_flags::sndmore | zmq::send_flags::dontwait)) return false;
    socket_->send(zmq::buffer(f.body), zmq::send_flags::dontwait);
    return true;
  }

private:
  void open(instant now) {
    began_ = now;
    greeted_ = false;
    socket_.emplace(context_, zmq::socket_type::dealer);
    set_common(*socket_);
    socket_->set(zmq::sockopt::immediate, true);
    socket_->set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(reply_bytes_max + envelope_bytes_max));
    socket_->set(zmq::sockopt::connect_timeout, static_cast<int>(patience_.count()));
    socket_->set(zmq::sockopt::curve_serverkey, to_.public_key);
    socket_->set(zmq::sockopt::curve_publickey, to_.as.public_key);
    socket_->set(zmq::sockopt::curve_secretkey, to_.as.secret_key);
    socket_->connect(to_.endpoints[at_]);
  }
  bool round_over() const { return at_ + 1 == to_.endpoints.size(); }
  /// The next endpoint's turn: at once, but after the last of them.
  void hang_up(instant now) {
    socket_.reset();
    const bool all_tried = round_over();
    at_ = all_tried ? 0 : at_ + 1;
    if (!all_tried) return;
    std::uniform_real_distribution<double> jitter{0.8, 1.2};
    next_ = now + std::chrono::duration_cast<std::chrono::milliseconds>(pause_ * jitter(random_));
    pause_ = std::min(2 * pause_, options_.redial_longest);
  }

  zmq::context_t& context_;
  const bridge_options& options_;
  const node_address to_;
  const std::chrono::milliseconds patience_; ///< with one endpoint
  std::size_t at_ = 0;                       ///< the endpoint whose turn it is
  std::optional<zmq::socket_t> socket_;
  bool greeted_ = false, complained_ = false;
  instant began_{}, next_{};
  std::chrono::milliseconds pause_;
  std::minstd_rand random_{std::random_device{}()};
};

/// A dial of this node by this node, with a key that nobody knows: to be refused.
struct self_test {
  zmq::socket_t socket;
  std::string key;
  instant began;
  bool refused = false;
};

class bridge_loop::sockets {
public:
  explicit sockets(bridge_loop& owner)
      : owner_(owner)
      , options_(owner.options_)
      , counters_(*owner.memory_->counters)
      , users_(options_.authorized)
      , sessions_(options_.sessions, users_, owner.exposed_, owner.port_, owner.memory_->counters,
                  [this](const std::string& route, const frame& f) { return send(route, f); }, options_.mesh,
                  owner.outbox_) {
    for (auto& to : options_.dials)
      dials_.emplace_back(context_, options_, to);
  }

  void run() {
    open();
    if (owner_.stop_) return;
    owner_.listener_.bound(endpoint_);
    while (!owner_.stop_) {
      poll();
      auto now = boot_clock::now();
      on_zap(now);
      on_router(now);
      on_dials(now);
      sessions_.deliver(owner_.outbox_->take());
      if (now >= next_tick_) on_tick(now);
    }
  }

private:
  void open() {
    zap_.set(zmq::sockopt::linger, 0);
    zap_.bind("inproc://zeromq.zap.01"); // before the ROUTER: from its first moment on somebody must answer
    set_common(router_);
    router_.set(zmq::sockopt::router_mandatory, true);
    router_.set(zmq::sockopt::router_handover, false);
    router_.set(zmq::sockopt::curve_server, true);
    router_.set(zmq::sockopt::curve_secretkey, options_.keys.secret_key);
    router_.set(zmq::sockopt::zap_domain, zap_domain);
    refresh_users();
    bind();
  }

  void bind() {
    std::unique_lock lock{owner_.memory_->mutex};
    auto where = owner_.memory_->endpoint.empty() ? options_.listen : owner_.memory_->endpoint;
    lock.unlock();
    auto until = boot_clock::now() + options_.bind_patience;
    while (!owner_.stop_) {
      try {
        router_.bind(where);
        break;
      } catch (const zmq::error_t& e) {
        if (boot_clock::now() >= until) throw std::runtime_error("cannot listen on " + where + ": " + e.what());
      }
      std::this_thread::sleep_for(std::chrono::milliseconds{50});
    }
    if (owner_.stop_) return;
    endpoint_ = router_.get(zmq::sockopt::last_endpoint);
    lock.lock();
    owner_.memory_->endpoint = endpoint_;
  }

  void poll() {
    std::vector<zmq::pollitem_t> items = {{nullptr, owner_.outbox_->fd(), ZMQ_POLLIN, 0},
                                          {zap_.handle(), 0, ZMQ_POLLIN, 0},
                                          {router_.handle(), 0, ZMQ_POLLIN, 0}};
    for (auto& d : dials_)
      if (auto* s = d.socket()) items.push_back({s->handle(), 0, ZMQ_POLLIN, 0});
    try {
      zmq::poll(items, tick_period);
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
    }
    if (items[0].revents) owner_.outbox_->rest();
  }

  void refresh_users() {
    auto changed = users_.refresh();
    if (!changed)
      log::error("BRIDGE", "allow-list kept as it was: {}", changed.error().what);
    else if (*changed)
      sessions_.revoke();
  }

  // RFC 27: version, request id, domain, address, identity, mechanism, credentials
  void on_zap(instant now) {
    multipart m;
    for (int i = 0; i < batch_max && receive(zap_, m); ++i) {
      auto field = [&](std::size_t n) { return n < m.parts.size() ? text_of(m.parts[n]) : std::string{}; };
      bool sound =
          m.count == 7 && field(0) == "1.0" && field(2) == zap_domain && field(5) == "CURVE" && field(6).size() == 32;
      auto user = sound ? admitted(field(6), now) : std::string{};
      const std::string answer[] = {"1.0", field(1), user.empty() ? "400" : "200", user.empty() ? "no" : "ok",
                                    user,  ""};
      for (const auto& part : answer) {
        bool last = &part == &answer[std::size(answer) - 1];
        zap_.send(zmq::buffer(part), last ? zmq::send_flags::none : zmq::send_flags::sndmore);
      }
    }
  }

  /// The key as text if it is let in, else empty.
  std::string admitted(const std::string& raw_key, instant now) {
    char key[key_chars + 1];
    if (!zmq_z85_encode(key, reinterpret_cast<const std::uint8_t*>(raw_key.data()), raw_key.size())) return {};
    if (test_ && test_->key == key) {
      test_->refused = true;
      return {};
    }
    if (!users_.find(key)) refresh_users(); // it may have been added a moment ago
    if (users_.find(key) && sessions_.may_connect(key, now)) return key;
    ++counters_.denied_keys;
    if (now >= next_denied_line_) { // counted, but no flood of them may push other lines out of the log
      next_denied_line_ = now + std::chrono::seconds{1};
      log::warn("BRIDGE", "key denied key={}", key);
    }
    return {};
  }

  void on_router(instant now) {
    multipart m;
    for (int i = 0; i < batch_max && receive(router_, m); ++i) {
      std::vector<std::string_view> parts;
      for (std::size_t n = 1; n < m.parts.size(); ++n)
        parts.push_back(m.parts[n].to_string_view());
      auto user = user_of(m.parts.back());
      auto verdict = sessions_.heard(text_of(m.parts.front()), user, parts, now);
      if (verdict == sessions::verdict::intruder)
        throw std::runtime_error("a message without User-Id: the door is open");
    }
  }

  void on_dials(instant now) {
    multipart m;
    for (auto& d : dials_)
      for (int i = 0; i < batch_max && d.socket() && receive(*d.socket(), m); ++i) {
        std::vector<std::string_view> parts;
        for (auto& p : m.parts)
          parts.push_back(p.to_string_view());
        sessions_.heard_dialled(d.route(), parts, now);
      }
  }

  void on_tick(instant now) {
    next_tick_ = now + tick_period;
    if (now >= next_refresh_) {
      next_refresh_ = now + allow_list_period;
      refresh_users();
    }
    sessions_.tick(now);
    for (auto& d : dials_)
      d.tick(sessions_, now);
    if (test_)
      check_self_test(now);
    else if (now >= next_test_)
      begin_self_test(now);
  }

  void begin_self_test(instant now) {
    auto keys = make_keys();
    test_ = self_test{{context_, zmq::socket_type::dealer}, keys.public_key, now};
    set_common(test_->socket);
    test_->socket.set(zmq::sockopt::curve_serverkey, options_.keys.public_key);
    test_->socket.set(zmq::sockopt::curve_publickey, keys.public_key);
    test_->socket.set(zmq::sockopt::curve_secretkey, keys.secret_key);
    test_->socket.connect(local_form(endpoint_));
    envelope greeting;
    greeting.kind = frame_kind::hello;
    test_->socket.send(zmq::buffer(encode_head(greeting)), zmq::send_flags::sndmore);
    test_->socket.send(zmq::str_buffer(""), zmq::send_flags::dontwait);
  }

  void check_self_test(instant now) {
    multipart m;
    if (receive(test_->socket, m)) throw std::runtime_error("a stranger's key was let in: the door is open");
    if (test_->refused) {
      ++counters_.self_tests;
      next_test_ = now + options_.self_test_period;
      test_.reset();
    } else if (now - test_->began > options_.self_test_patience) {
      log::warn("BRIDGE", "self-test came to no end at {}; tried again", endpoint_);
      test_.reset();
    }
  }

  bool send(const std::string& route, const frame& f) {
    for (auto& d : dials_)
      if (d.route() == route) return d.send(f);
    try {
      auto head = encode_head(f.head);
      if (!router_.send(zmq::buffer(route), zmq::send_flags::sndmore | zmq::send_flags::dontwait)) return false;
      router_.send(zmq::buffer(head), zmq::send_flags::sndmore | zmq::send_flags::dontwait);
      router_.send(zmq::buffer(f.body), zmq::send_flags::dontwait);
      return true;
    } catch (const zmq::error_t& e) {
      if (e.num() == EHOSTUNREACH) return false;
      throw;
    }
  }

  bridge_loop& owner_;
  const bridge_options& options_;
  bridge_counters& counters_;
  allow_list users_;
  zmq::context_t context_{1};
  zmq::socket_t zap_{context_, zmq::socket_type::rep}; // closed after the ROUTER, as the order of members says
  zmq::socket_t router_{context_, zmq::socket_type::router};
  std::deque<dialled> dials_;
  std::optional<self_test> test_;
  std::string endpoint_;
  rt::sessions sessions_;
  instant next_tick_{}, next_refresh_{}, next_test_{}, next_denied_line_{};
};

bridge_loop::bridge_loop(caf::actor_system& system, bridge_options options, std::shared_ptr<const registry> exposed,
                         std::shared_ptr<bridge_memory> memory, listener l)
    : options_(std::move(options))
    , exposed_(std::move(exposed))
    , memory_(std::move(memory))
    , listener_(std::move(l))
    , port_(reply_port::make(system, outbox_))
    , thread_([this] { run(); }) {}

bridge_loop::~bridge_loop() {
  stop_ = true;
  outbox_->wake();
  thread_.join();
}

void bridge_loop::run() {
  pthread_setname_np(pthread_self(), "bridge"); // ignored: only a name for people
  try {
    sockets{*this}.run();
  } catch (const std::exception& e) {
    log::error("BRIDGE", "{}", e.what());
    listener_.ended({ec::crashed, e.what()});
  }
}

} // namespace coppice::rt
