#include "runtime/fd.hpp"
#include "store/http_exchange.hpp"

#include <arpa/inet.h>
#include <catch2/catch.hpp>
#include <sys/socket.h>

#include <thread>

using namespace coppice;

namespace {

/// Answers one connection with these bytes, and closes it.
class one_answer {
public:
  explicit one_answer(std::string bytes) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof a;
    REQUIRE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&a), size) == 0);
    REQUIRE(::listen(listener_.get(), 1) == 0);
    REQUIRE(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&a), &size) == 0);
    url = "http://127.0.0.1:" + std::to_string(ntohs(a.sin_port)) + "/";
    thread_ = std::thread{[this, bytes = std::move(bytes)] {
      const rt::unique_fd client{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
      char request[4096];
      (void)::recv(client.get(), request, sizeof request, 0);
      (void)::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    }};
  }
  ~one_answer() { thread_.join(); }
  std::string url;

private:
  rt::unique_fd listener_{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  std::thread thread_;
};

struct client {
  store::http_connections connections{1};
  std::atomic<bool> stop{false};
  store::http_exchange get(const std::string& url) { return {connections, {"GET", url, {}, {}}, {}, 1 << 20, stop}; }
};

} // namespace

TEST_CASE("bytes that came with the head of an answer are read, though it broke off at once") {
  client c;
  one_answer server{"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly these"};
  auto x = c.get(server.url);
  const auto status = x.status();
  REQUIRE(status);
  CHECK(*status == 200);
  CHECK(x.header("Content-Length") == "100");
  std::string got(100, '\0');
  auto n = x.read(got);
  REQUIRE(n);
  CHECK(got.substr(0, *n) == "only these");
  n = x.read(got);
  REQUIRE_FALSE(n);
  CHECK(n.error().code == ec::unavailable);
}

TEST_CASE("an answer without a body has a status, and one that never comes has none") {
  client c;
  {
    one_answer server{"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"};
    auto x = c.get(server.url);
    CHECK(x.status().value() == 404);
    CHECK(x.words().empty());
  }
  one_answer server{""};
  auto x = c.get(server.url);
  const auto status = x.status();
  REQUIRE_FALSE(status);
  CHECK(status.error().code == ec::unavailable);
}
