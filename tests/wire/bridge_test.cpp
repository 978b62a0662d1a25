#include "tests/wire/farm.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <random>

using namespace coppice;
using namespace coppice::test;

namespace {

expected<node_info> info(rt::connection& c, std::chrono::milliseconds timeout = 5s) {
  return c.call<node_info>("oracle", "info", get_info{}, timeout);
}

/// Connects, and fails the test with the reason if it cannot.
rt::connection dial(const rt::credentials& c, rt::connect_options o = {}) {
  auto x = rt::connection::connect(c, o);
  if (!x) FAIL(x.error().what);
  return std::move(*x);
}

error why(const auto& x) {
  return x ? error{} : x.error();
}

std::uint16_t port_of(const std::string& endpoint) {
  return static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)));
}

/// A plain TCP connection that sends `bytes` and waits until the other side hangs up, or a moment.
void raw_tcp(const std::string& endpoint, std::string_view bytes) {
  rt::unique_fd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port_of(endpoint));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  timeval patience{0, 100'000};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  static_cast<void>(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
  char sink[256];
  while (::recv(fd.get(), sink, sizeof sink, 0) > 0) {
  }
}

} // namespace

TEST_CASE_METHOD(farm, "a call goes through, and the actor is told who asks") {
  start();
  auto c = dial(client(role::submitter));
  auto answer = info(c);
  REQUIRE(answer);
  CHECK(answer->version == "lena/submitter");
  CHECK(c.peer().node.value == "alder");
  CHECK(c.call<accepted>("oracle", "submit", submit(), 5s));
  CHECK(*submits == 1);
}

TEST_CASE_METHOD(farm, "a role below the method's is forbidden and the actor never hears of it") {
  start();
  auto c = dial(client(role::observer));
  auto answer = c.call<accepted>("oracle", "submit", submit(), 5s);
  CHECK(why(answer).code == ec::forbidden);
  CHECK(why(answer).what == "oracle.submit needs role submitter, and key lena has role observer");
  CHECK(*submits == 0);
  CHECK(counters().forbidden == 1);
}

TEST_CASE_METHOD(farm, "a message that does not pass check() is never delivered") {
  start();
  auto c = dial(client(role::submitter));
  auto m = submit();
  m.body.priority = 5000;
  CHECK(why(c.call<accepted>("oracle", "submit", m, 5s)).code == ec::bad_message);
  CHECK(why(c.call<accepted>("oracle", "submit", get_requests{}, 5s)).code == ec::bad_message);
  CHECK(*submits == 0);
  CHECK(counters().bad_frames == 2);
}

TEST_CASE_METHOD(farm, "unknown targets and methods, and handlers without a caller, cannot be called") {
  start();
  auto c = dial(client(role::admin));
  CHECK(why(c.call<node_info>("ghost", "info", get_info{}, 5s)).code == ec::no_such_target);
  CHECK(why(c.call<node_info>("oracle", "get", get_info{}, 5s)).code == ec::unsupported);
}

TEST_CASE_METHOD(farm, "an unknown key is refused with a reason that names key, file and node") {
  start();
  client(role::submitter);
  auto c = rt::connection::connect(stranger());
  CHECK(why(c).code == ec::forbidden);
  CHECK(why(c).what == "node at " + endpoint + " refused the key eve (file " + (dir / "eve.toml").string() + ")");
  CHECK(counters().denied_keys >= 1);
  CHECK(counters().sessions == 0);
}

TEST_CASE_METHOD(farm, "an empty allow-list, and none, admit nobody") {
  start();
  CHECK(why(rt::connection::connect(stranger())).code == ec::forbidden);
  REQUIRE(rt::write_authorized(options.authorized, {}));
  CHECK(why(rt::connection::connect(stranger())).code == ec::forbidden);
}

TEST_CASE_METHOD(farm, "where nobody listens the reason says so") {
  start();
  auto c = client(role::submitter);
  c.endpoints[0].address = "tcp://127.0.0.1:1";
  auto began = std::chrono::steady_clock::now();
  auto x = rt::connection::connect(c);
  CHECK(why(x).code == ec::peer_down);
  CHECK(why(x).what == "cannot reach tcp://127.0.0.1:1: nobody answers");
  CHECK(std::chrono::steady_clock::now() - began < 3s);
}

TEST_CASE_METHOD(farm, "a node that is not who we expect is not talked to") {
  start();
  auto c = client(role::submitter);
  c.endpoints[0].server_key = rt::make_keys().public_key;
  rt::connect_options o;
  o.connect_timeout = 1s;
  auto x = rt::connection::connect(c, o);
  CHECK(why(x).code == ec::peer_down);
  CHECK(why(x).what.find("broke off the handshake") != std::string::npos);
}

TEST_CASE_METHOD(farm, "an address that makes no sense and a missing server key are invalid") {
  start();
  auto c = client(role::submitter);
  c.endpoints[0].address = "localhost";
  CHECK(why(rt::connection::connect(c)).code == ec::invalid);
  c.endpoints[0].server_key = "";
  CHECK(why(rt::connection::connect(c)).code == ec::invalid);
  c.endpoints.clear();
  CHECK(why(rt::connection::connect(c)).code == ec::peer_down);
}

TEST_CASE_METHOD(farm, "the next endpoint is tried when one does not answer") {
  start();
  auto c = client(role::submitter);
  c.endpoints.insert(c.endpoints.begin(), {"tcp://127.0.0.1:1", server.public_key});
  auto x = dial(c);
  CHECK(info(x));
  CHECK(x.where().address == endpoint);
}

TEST_CASE_METHOD(farm, "a client without CURVE is never heard") {
  start();
  raw_dealer d{{}, endpoint};
  d.greet();
  CHECK(d.receive(500ms).head.kind == rt::frame_kind::none);
  CHECK(counters().sessions == 0);
}

TEST_CASE_METHOD(farm, "a version that the node does not speak is refused with the versions it does") {
  start();
  raw_dealer d{client(role::submitter), endpoint};
  d.greet(7, 9);
  auto f = d.receive();
  CHECK(f.head.kind == rt::frame_kind::refuse);
  CHECK(rt::error_of(f.head) == error{ec::unsupported, "this node speaks versions 1 to 2"});
}

TEST_CASE_METHOD(farm, "garbage over plain TCP changes nothing") {
  start();
  auto c = dial(client(role::submitter));
  std::mt19937 rng{7};
  for (int i = 0; i < 20; ++i) {
    std::string garbage(1 + rng() % 2000, '\0');
    for (auto& b : garbage)
      b = static_cast<char>(rng());
    raw_tcp(endpoint, garbage);
  }
  raw_tcp(endpoint, "GET / HTTP/1.1\r\n\r\n");
  CHECK(info(c));
}

TEST_CASE_METHOD(farm, "garbage from a valid key is dropped, counted, and hurts nobody") {
  start();
  auto other = dial(client(role::submitter, "max"));
  raw_dealer d{client(role::submitter), endpoint};
  std::vector<std::vector<std::string>> hostile{
      {""},
      {"x"},
      {"", ""},
      {std::string("\xdd\xff\0\0\0", 5), ""},
      {std::string(100'000, '\x91'), ""},
      {"a", "b", "c"},
      std::vector<std::string>(1000, "part"),
      {std::string(1000, '\xff'), std::string(1000, '\xff')},
  };
  for (const auto& parts : hostile)
    d.send(parts);
  CHECK(eventually([&] { return counters().bad_frames == hostile.size(); }));
  d.greet();
  CHECK(d.receive().head.kind == rt::frame_kind::welcome);
  d.send(rt::frame_kind::request, 1, std::string(100'000, '\x91'), "oracle", "submit");
  CHECK(rt::error_of(d.receive().head).code == ec::bad_message);
  for (auto kind : {rt::frame_kind::welcome, rt::frame_kind::reply, rt::frame_kind::error, rt::frame_kind::none})
    d.send(kind);
  CHECK(eventually([&] { return counters().bad_frames == hostile.size() + 5; }));
  CHECK(info(other));
  CHECK(*submits == 0);
}

TEST_CASE_METHOD(farm, "a message of more than 1 MiB breaks only the connection that sent it") {
  start();
  auto other = dial(client(role::submitter, "max"));
  raw_dealer d{client(role::submitter), endpoint};
  d.greet();
  CHECK(d.receive().head.kind == rt::frame_kind::welcome);
  d.send(rt::frame_kind::request, 1, std::string(rt::request_bytes_max + 1, 'x'), "oracle", "submit");
  CHECK(d.receive(500ms).head.kind == rt::frame_kind::none);
  CHECK(info(other));
  auto c = dial(client(role::submitter, "eva"));
  CHECK(why(c.call_bytes("oracle", "submit", std::string(2 << 20, 'x'), 5s)).code == ec::limit_exceeded);
}

TEST_CASE_METHOD(farm, "a request before the hello is refused") {
  start();
  raw_dealer d{client(role::submitter), endpoint};
  d.send(rt::frame_kind::request, 1, wire::encode(submit()), "oracle", "submit");
  auto f = d.receive();
  CHECK(f.head.kind == rt::frame_kind::refuse);
  CHECK(rt::error_of(f.head).code == ec::unavailable);
  CHECK(*submits == 0);
}

TEST_CASE_METHOD(farm, "a revoked key loses its session within a second, and cannot come back") {
  start();
  auto max = client(role::submitter, "max");
  auto lena = client(role::submitter);
  auto c = dial(lena);
  auto other = dial(max);
  CHECK(info(c));
  CHECK(counters().sessions == 2);
  allowed.key.pop_back();
  REQUIRE(rt::write_authorized(options.authorized, allowed));
  CHECK(eventually([&] { return counters().sessions == 1; }, 1s));
  CHECK(why(info(c)).code == ec::forbidden);
  CHECK(why(c.call<accepted>("oracle", "submit", submit(), 5s)).code == ec::forbidden);
  CHECK(*submits == 0);
  CHECK(why(rt::connection::connect(lena)).code == ec::forbidden);
  CHECK(info(other));
}

TEST_CASE_METHOD(farm, "a role that is taken away is gone for open sessions too") {
  start();
  auto c = dial(client(role::submitter));
  CHECK(c.call<accepted>("oracle", "submit", submit(), 5s));
  allowed.key[0].role = role::observer;
  REQUIRE(rt::write_authorized(options.authorized, allowed));
  CHECK(eventually([&] { return info(c)->version == "lena/observer"; }));
  CHECK(why(c.call<accepted>("oracle", "submit", submit(), 5s)).code == ec::forbidden);
}

TEST_CASE_METHOD(farm, "a call to an actor that dies is answered by its error, and the next one by its successor") {
  start();
  auto c = dial(client(role::submitter));
  CHECK(why(c.call<request_progress>("oracle", "poll", poll(1), 5s)).code == ec::crashed); // this request made it throw
  CHECK(info(c));
}

TEST_CASE_METHOD(farm, "a call in the hands of an actor that dies is answered with restarted") {
  start();
  auto c = dial(client(role::submitter));
  std::thread killer{[&] {
    eventually([&] { return counters().requests == 1; });
    std::this_thread::sleep_for(50ms);
    names->kill("/oracle");
  }};
  CHECK(why(c.call<request_progress>("oracle", "poll", poll(2), 10s)).code == ec::restarted);
  killer.join();
  CHECK(info(c));
}

TEST_CASE_METHOD(farm, "a call that nobody answers ends at its deadline, on both sides") {
  options.sessions.call_deadline = 300ms;
  start();
  auto c = dial(client(role::submitter));
  auto x = c.call<request_progress>("oracle", "poll", poll(2), 10s);
  CHECK(why(x) == error{ec::deadline, "no answer in time"});
  auto began = std::chrono::steady_clock::now();
  CHECK(why(c.call<request_progress>("oracle", "poll", poll(2), 100ms)).code == ec::deadline);
  CHECK(std::chrono::steady_clock::now() - began < 1s);
  CHECK(info(c)); // and takes no late answer for its own
}

TEST_CASE_METHOD(farm, "large answers arrive, too large ones are told to be so") {
  start();
  auto c = dial(client(role::submitter));
  auto large = c.call<request_progress>("oracle", "poll", poll(3), 10s);
  REQUIRE(large);
  CHECK(large->running.size() == 5);
  CHECK(why(c.call<request_progress>("oracle", "poll", poll(4), 10s)).code == ec::limit_exceeded);
  for (int i = 0; i < 10; ++i)
    CHECK(c.call<request_progress>("oracle", "poll", poll(3), 10s));
}

TEST_CASE_METHOD(farm, "a client that does not read is congested, and others are not") {
  start();
  raw_dealer d{client(role::submitter), endpoint};
  d.socket().set(zmq::sockopt::rcvhwm, 1);
  d.greet();
  for (std::uint64_t i = 1; i <= 20; ++i)
    d.send(rt::frame_kind::request, i, wire::encode(poll(3)), "oracle", "poll");
  CHECK(eventually([&] { return counters().requests == 20; }));
  auto c = dial(client(role::submitter, "max"));
  CHECK(info(c, 30s)); // behind all of them in the actor's mailbox
  std::size_t answered = 0, congested = 0;
  while (answered + congested < 20) {
    auto f = d.receive(30s);
    if (f.head.kind == rt::frame_kind::none) break;
    if (f.head.kind == rt::frame_kind::reply) ++answered;
    if (f.head.kind == rt::frame_kind::error) congested += rt::error_of(f.head).code == ec::congested;
  }
  CHECK(answered == 3); // of 5 MiB each: a window's worth
  CHECK(congested == 17);
}

TEST_CASE_METHOD(farm, "one session cannot have more calls open than allowed") {
  start();
  raw_dealer d{client(role::submitter), endpoint};
  d.greet();
  CHECK(d.receive().head.kind == rt::frame_kind::welcome);
  for (std::uint64_t i = 1; i <= 300; ++i)
    d.send(rt::frame_kind::request, i, wire::encode(poll(2)), "oracle", "poll");
  for (std::uint64_t i = rt::line::calls_per_session_max + 1; i <= 300; ++i) {
    auto f = d.receive();
    CHECK(f.head.id == i);
    CHECK(rt::error_of(f.head).code == ec::overloaded);
  }
}

TEST_CASE_METHOD(farm, "a key that floods is told to slow down, others go on") {
  options.sessions.rate = {.per_second = 1, .burst = 20, .warnings = 5, .drops = 1000};
  start();
  auto other = client(role::submitter, "max");
  raw_dealer d{client(role::submitter), endpoint};
  d.greet();
  CHECK(d.receive().head.kind == rt::frame_kind::welcome);
  for (std::uint64_t i = 1; i <= 100; ++i)
    d.send(rt::frame_kind::request, i, wire::encode(submit()), "oracle", "submit");
  CHECK(eventually([&] { return counters().limited >= 80; }));
  CHECK(*submits <= 20);
  int warned = 0;
  for (auto f = d.receive(); f.head.kind != rt::frame_kind::none; f = d.receive(300ms))
    warned += f.head.kind == rt::frame_kind::error && rt::error_of(f.head).code == ec::overloaded;
  CHECK(warned == 5);
  auto c = dial(other);
  CHECK(info(c));
}

TEST_CASE_METHOD(farm, "a key that goes on flooding is banned, and others are not") {
  options.sessions.rate = {.per_second = 1, .burst = 20, .warnings = 5, .drops = 5};
  start();
  auto key = client(role::submitter);
  raw_dealer d{key, endpoint};
  for (int i = 0; i < 100; ++i)
    d.greet();
  CHECK(eventually([&] { return counters().limited >= 80; }));
  CHECK(why(rt::connection::connect(key)).code == ec::forbidden);
  auto c = dial(client(role::submitter, "max"));
  CHECK(info(c));
}

TEST_CASE_METHOD(farm, "a session whose client has gone is forgotten") {
  options.sessions.peers.ping = 100ms;
  start();
  auto key = client(role::submitter);
  {
    auto c = dial(key);
    CHECK(info(c));
    CHECK(counters().sessions == 1);
  }
  CHECK(eventually([&] { return counters().sessions == 0; }));
}

TEST_CASE_METHOD(farm, "a client that was forgotten for its silence calls on as if nothing had happened") {
  options.sessions.peers.ping = 50ms;
  start();
  auto c = dial(client(role::submitter));
  CHECK(info(c));
  CHECK(eventually([&] { return counters().sessions == 0; }));
  CHECK(info(c));
}

TEST_CASE_METHOD(farm, "a waiting call keeps its session alive by heartbeats") {
  options.sessions.peers.ping = 100ms;
  options.sessions.call_deadline = 1500ms;
  start();
  rt::connect_options o;
  o.ping = 100ms;
  auto c = dial(client(role::submitter), o);
  CHECK(why(c.call<request_progress>("oracle", "poll", poll(2), 5s)) == error{ec::deadline, "no answer in time"});
  CHECK(counters().requests == 1); // asked once: the connection was never given up
}

TEST_CASE_METHOD(farm, "after a restart of the bridge its endpoint is the same and the client's next call works") {
  start();
  auto c = dial(client(role::submitter));
  CHECK(info(c));
  for (int i = 0; i < 3; ++i) {
    REQUIRE(names->kill("/bridge", i == 1 ? rt::kill_mode::crash : rt::kill_mode::exit));
    CHECK(info(c, 10s));
    CHECK(ask_endpoint() == endpoint);
  }
}

TEST_CASE_METHOD(farm, "a call under way is repeated when the bridge restarts") {
  start();
  auto c = dial(client(role::submitter));
  std::thread killer{[&] {
    eventually([&] { return counters().requests == 1; });
    names->kill("/bridge");
    eventually([&] { return counters().requests == 2; });
    names->kill("/oracle");
  }};
  CHECK(why(c.call<request_progress>("oracle", "poll", poll(2), 10s)).code == ec::restarted);
  killer.join();
  CHECK(counters().requests == 2);
}

TEST_CASE_METHOD(farm, "the door is tried with a random key at the start and again and again") {
  options.self_test_period = 200ms;
  start();
  CHECK(eventually([&] { return counters().self_tests >= 3; }));
  CHECK(counters().denied_keys == 0); // its own tests do not count
  CHECK(counters().bad_frames == 0);
}

TEST_CASE_METHOD(farm, "a state directory says where its node is and which key to use") {
  start();
  auto c = client(role::submitter);
  fs::create_directory(dir / "keys");
  REQUIRE(rt::write_key_file(dir / "keys" / "client.toml", c.key));
  CHECK(why(rt::try_state_dir(dir)).code == ec::not_found);
  REQUIRE(rt::write_endpoint_file(dir / "endpoint.toml", {endpoint, "http://x", server.public_key, 1, {}}));
  auto found = rt::try_state_dir(dir);
  REQUIRE(found);
  auto x = dial(*found);
  CHECK(info(x));
}
