#include "actors/deliver/http_server.hpp"

#include "actors/deliver/http_stream.hpp"
#include "runtime/fd.hpp"
#include "runtime/log.hpp"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

namespace coppice::actors {

namespace {

constexpr int backlog = 128;
constexpr auto breather = std::chrono::milliseconds{50}; ///< before accept() is tried again

/// What is known of the request that this thread serves; httplib's hooks have no other way to tell.
thread_local struct {
  bool must_close = true; ///< something of the request may still be unread
} serving;

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (e != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

[[noreturn]] void cannot_listen(const std::string& listen, const std::string& why) {
  throw std::runtime_error("cannot listen at " + listen + ": " + why);
}

rt::unique_fd listen_at(const std::string& listen, int port) {
  auto colon = listen.rfind(':');
  if (colon == std::string::npos) cannot_listen(listen, "no port");
  auto named = number(std::string_view{listen}.substr(colon + 1));
  if (!named || *named > 65535) cannot_listen(listen, "no port"); // getaddrinfo would take it modulo 65536
  auto host = listen.substr(0, colon), service = port ? std::to_string(port) : listen.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  if (int e = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), service.c_str(), &hints, &found); e != 0)
    cannot_listen(listen, ::gai_strerror(e));
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned{found, ::freeaddrinfo};
  int last = 0;
  for (auto* a = found; a; a = a->ai_next) {
    rt::unique_fd fd{::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol)};
    int on = 1;
    if (fd && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        ::bind(fd.get(), a->ai_addr, a->ai_addrlen) == 0 && ::listen(fd.get(), backlog) == 0)
      return fd;
    last = errno;
  }
  cannot_listen(host + ":" + service, std::strerror(last));
}

/// Whether the length of the request's body is stated in one clear way, or there is none.
bool is_framed(const httplib::Request& req) {
  auto lengths = req.get_header_value_count("Content-Length"),
       codings = req.get_header_value_count("Transfer-Encoding");
  if (lengths + codings == 0) return true;
  if (lengths + codings > 1) return false;
  return lengths ? number(req.get_header_value("Content-Length")).has_value()
                 : req.get_header_value("Transfer-Encoding") == "chunked";
}

bool may_have_body(const httplib::Request& req) {
  return req.method == "PUT" || req.has_header("Transfer-Encoding") ||
         (req.has_header("Content-Length") && req.get_header_value("Content-Length") != "0");
}

} // namespace

void respond(httplib::Response& res, int status, const std::string& text) {
  res.status = status;
  res.set_content(text + "\n", "text/plain; charset=utf-8");
}

class http_server::engine final : private httplib::Server {
public:
  engine(const std::string& listen, int port, http_routes routes, const http_limits& limits)
      : routes_(std::move(routes))
      , limits_(limits)
      , socket_(listen_at(listen, port))
      , wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!wake_) cannot_listen(listen, std::strerror(errno));
    http_stream{socket_.get(), limits_}.get_local_ip_and_port(host_, port_);
    url_ = "http://" + (host_.find(':') == std::string::npos ? host_ : "[" + host_ + "]") + ":" + std::to_string(port_);
    svr_sock_ = socket_.get(); // httplib takes an absent one for "shutting down"
    set_hooks();
    acceptor_ = std::thread{[this] { accept_all(); }};
  }
  ~engine() override {
    stop();
    acceptor_.join();
    for (auto& c : connections_)
      c.thread.join();
    svr_sock_ = INVALID_SOCKET;
  }

  void stop() {
    std::lock_guard lock{mutex_};
    stopping_ = true;
    svr_sock_ = INVALID_SOCKET;
    for (auto& c : connections_)
      if (c.fd) ::shutdown(c.fd.get(), SHUT_RDWR);
    (void)!::write(wake_.get(), "\1\0\0\0\0\0\0\0", 8); // ignored: cannot fail, the counter is far from full
    ended_.notify_all();
  }
  const std::string& url() const { return url_; }
  int port() const { return port_; }

private:
  struct connection {
    rt::unique_fd fd; ///< closed, under the mutex, by the connection's thread
    std::thread thread;
    std::chrono::steady_clock::time_point idle_since{};
    bool idle = false;
    bool over = false;
  };

  void set_hooks();
  bool refuses(const httplib::Request& req, httplib::Response& res) const;
  void accept_all();
  void accept_one();
  bool make_room();
  void serve(connection& c);
  bool serve_request(http_stream& stream, bool last);
  void set_idle(connection& c, bool idle);

  const http_routes routes_;
  const http_limits limits_;
  rt::unique_fd socket_, wake_;
  std::string host_, url_;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_; // over what follows
  std::condition_variable ended_;
  std::list<connection> connections_;
  std::thread acceptor_;
};

bool http_server::engine::refuses(const httplib::Request& req, httplib::Response& res) const {
  if (!is_framed(req)) {
    respond(res, 400, "the length of the body is not clear");
  } else if (req.method != "PUT") {
    respond(res, 405, "only GET, HEAD, PUT and DELETE are served here");
    res.set_header("Allow", "GET, HEAD, PUT, DELETE");
  } else if (!req.has_header("Content-Length") && !req.has_header("Transfer-Encoding")) {
    respond(res, 411, "the length of the body must be stated");
  } else {
    auto coding = req.get_header_value("Content-Encoding"); // httplib would undo others itself, without bounds
    if (coding.empty() || coding == "zstd" || coding == "identity") return !routes_.admits(req, res);
    respond(res, 415, "a body may be encoded by zstd, not by " + coding);
  }
  return true;
}

void http_server::engine::set_hooks() {
  set_keep_alive_max_count(limits_.requests_max);
  set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(limits_.idle_max).count());
  set_pre_routing_handler([this](const httplib::Request& req, httplib::Response& res) {
    if (is_framed(req) && (req.method == "GET" || req.method == "HEAD"))
      routes_.get(req, res);
    else if (is_framed(req) && req.method == "DELETE")
      routes_.remove(req, res);
    else if (!refuses(req, res))
      return HandlerResponse::Unhandled;
    return HandlerResponse::Handled;
  });
  set_expect_100_continue_handler([this](const httplib::Request& req, httplib::Response& res) {
    if (req.method != "PUT" || !refuses(req, res)) return 100;
    res.set_header("Content-Length", std::to_string(res.body.size())); // httplib omits it here
    return res.status;
  });
  Put(R"([\s\S]*)", [this](const httplib::Request& req, httplib::Response& res, const httplib::ContentReader& reader) {
    routes_.put(req, res, [&reader](const std::function<bool(std::string_view)>& take) {
      bool whole = reader([&take](const char* bytes, std::size_t size) { return take({bytes, size}); });
      if (whole) serving.must_close = false;
      return whole;
    });
  });
  set_post_routing_handler([this](const httplib::Request&, httplib::Response& res) {
    if (stopping_) serving.must_close = true;
    if (!serving.must_close) return;
    res.headers.erase("Keep-Alive");
    res.headers.erase("Connection");
    res.set_header("Connection", "close");
  });
  set_exception_handler([](const httplib::Request& req, httplib::Response& res, std::exception_ptr e) {
    try {
      std::rethrow_exception(e);
    } catch (const std::exception& x) {
      rt::log::error("CACHE_SERVER", "request failed method={} path={} error={}", req.method, req.path, x.what());
    }
    respond(res, 500, "internal error");
  });
}

void http_server::engine::accept_all() {
  ::pthread_setname_np(::pthread_self(), "http-accept");
  while (!stopping_) {
    pollfd p[2] = {{socket_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (::poll(p, 2, -1) < 0 && errno != EINTR) break;
    if (!stopping_ && (p[0].revents & POLLIN) && make_room()) accept_one();
  }
}

// An idle connection gives way: its client will open another one.
bool http_server::engine::make_room() {
  std::unique_lock lock{mutex_};
  for (auto it = connections_.begin(); it != connections_.end();) {
    if (it->over) it->thread.join();
    it = it->over ? connections_.erase(it) : std::next(it);
  }
  if (connections_.size() < limits_.connections_max) return true;
  connection* oldest = nullptr;
  for (auto& c : connections_)
    if (c.idle && c.fd && (!oldest || c.idle_since < oldest->idle_since)) oldest = &c;
  if (oldest) ::shutdown(oldest->fd.get(), SHUT_RDWR);
  ended_.wait_for(lock, breather);
  return false;
}

void http_server::engine::accept_one() {
  rt::unique_fd fd{::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  std::unique_lock lock{mutex_};
  if (!fd) {
    // the peer left, or there are no descriptors; neither ends the server
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) ended_.wait_for(lock, breather);
    return;
  }
  if (stopping_) return;
  int on = 1;
  // ignored: without it answers are later, not wrong
  (void)::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  auto& c = connections_.emplace_back();
  c.fd = std::move(fd);
  try {
    c.thread = std::thread{[this, &c] { serve(c); }};
  } catch (const std::system_error& e) {
    rt::log::warn("CACHE_SERVER", "no thread for a connection error={}", e.what());
    connections_.pop_back();
  }
}

void http_server::engine::set_idle(connection& c, bool idle) {
  std::lock_guard lock{mutex_};
  c.idle = idle;
  c.idle_since = std::chrono::steady_clock::now();
}

void http_server::engine::serve(connection& c) {
  ::pthread_setname_np(::pthread_self(), "http");
  {
    http_stream stream{c.fd.get(), limits_};
    for (std::size_t left = limits_.requests_max; left > 0 && !stopping_; --left) {
      set_idle(c, true);
      if (!stream.wait_for_request()) break;
      set_idle(c, false);
      if (!serve_request(stream, left == 1)) break;
    }
    if (!stopping_) stream.linger();
  }
  std::lock_guard lock{mutex_};
  c.fd.reset();
  c.over = true;
  ended_.notify_all();
}

// True if another request may follow.
bool http_server::engine::serve_request(http_stream& stream, bool last) {
  bool closed = false;
  serving.must_close = true;
  bool done = process_request(stream, last, closed, [&stream](httplib::Request& req) {
    stream.end_head();
    serving.must_close = may_have_body(req) || !is_framed(req);
    req.ranges.clear();                   // httplib checks them against nothing
    req.headers.erase("Accept-Encoding"); // it would compress, and change lengths
    req.headers.erase("Content-Type");    // it would parse forms
  });
  return done && !closed && !last && !serving.must_close;
}

http_server::http_server(const std::string& listen, int port, http_routes routes, const http_limits& limits)
    : engine_(std::make_unique<engine>(listen, port, std::move(routes), limits)) {}
http_server::~http_server() = default;
const std::string& http_server::url() const {
  return engine_->url();
}
int http_server::port() const {
  return engine_->port();
}

} // namespace coppice::actors
