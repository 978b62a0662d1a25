#include "tests/wire/farm.hpp"

/// INV-15: what a message without a proven sender can do, which libzmq delivers when nobody answers for ZAP.
using namespace coppice;
using namespace coppice::test;

namespace {

/// A session table whose answers are kept, with one key let in.
struct table {
  farm base; // for its directory and key files only
  rt::allow_list users{base.options.authorized};
  caf::actor_system system{base.config};
  std::shared_ptr<rt::outbox> outbox = std::make_shared<rt::outbox>();
  std::shared_ptr<rt::bridge_counters> counters = std::make_shared<rt::bridge_counters>();
  std::vector<rt::frame> sent;
  rt::sessions sessions{{},
                        users,
                        std::make_shared<rt::registry>(),
                        rt::reply_port::make(system, outbox),
                        counters,
                        [this](const std::string&, const rt::frame& f) {
                          sent.push_back(f);
                          return true;
                        }};
  std::string key;
  std::string head, body;

  table() {
    key = base.client(role::node).key.public_key;
    REQUIRE(users.refresh());
    rt::envelope e;
    e.kind = rt::frame_kind::hello;
    head = rt::encode_head(e);
    body = wire::encode(rt::hello{"coppice", 1, 1, "", "", 0});
  }
  rt::sessions::verdict hear(const std::optional<std::string>& user, const std::string& route = "r") {
    return sessions.heard(route, user, {head, body}, rt::instant{std::chrono::hours{1}});
  }
};

} // namespace

TEST_CASE("a message without User-Id is never processed, and betrays that the door is open") {
  table t;
  CHECK(t.hear({}) == rt::sessions::verdict::intruder);
  CHECK(t.sent.empty());
  CHECK(t.counters->sessions == 0);
}

TEST_CASE("a message of a key that is not in the list is dropped without an answer") {
  table t;
  CHECK(t.hear(rt::make_keys().public_key) == rt::sessions::verdict::taken);
  CHECK(t.sent.empty());
  CHECK(t.counters->sessions == 0);
}

TEST_CASE("a routing id taken over by another key starts anew") {
  table t;
  auto other = t.base.client(role::observer, "other").key.public_key;
  REQUIRE(t.users.refresh());
  t.hear(t.key);
  REQUIRE(t.sent.size() == 1);
  CHECK(t.sent[0].head.kind == rt::frame_kind::welcome);
  rt::envelope e;
  e.kind = rt::frame_kind::request;
  t.head = rt::encode_head(e);
  t.hear(other);
  REQUIRE(t.sent.size() == 2);
  CHECK(t.sent[1].head.kind == rt::frame_kind::refuse);
  CHECK(t.counters->sessions == 1);
}

TEST_CASE("one key cannot have more connections than allowed") {
  table t;
  for (int i = 0; i < 256; ++i)
    t.hear(t.key, "r" + std::to_string(i));
  CHECK(t.counters->sessions == 256);
  t.hear(t.key, "one more");
  CHECK(t.counters->sessions == 256);
  CHECK(rt::error_of(t.sent.back().head).code == ec::overloaded);
}

TEST_CASE("without a ZAP responder libzmq lets a stranger in, but without a User-Id") {
  // the fact that the two checks above stand on; if it ever fails, libzmq has learnt to fail closed
  zmq::context_t context{1};
  zmq::socket_t router{context, zmq::socket_type::router};
  auto server = rt::make_keys(), stranger = rt::make_keys();
  router.set(zmq::sockopt::linger, 0);
  router.set(zmq::sockopt::curve_server, true);
  router.set(zmq::sockopt::curve_secretkey, server.secret_key);
  router.set(zmq::sockopt::zap_domain, "coppice");
  router.set(zmq::sockopt::rcvtimeo, 3000);
  router.bind("tcp://127.0.0.1:0");
  raw_dealer d{{{{"", server.public_key}}, {"", role::node, stranger.public_key, stranger.secret_key, ""}, ""},
               router.get(zmq::sockopt::last_endpoint)};
  d.greet();
  zmq::message_t part;
  REQUIRE(router.recv(part));
  REQUIRE(router.recv(part));
  CHECK(zmq_msg_gets(part.handle(), "User-Id") == nullptr);
}
