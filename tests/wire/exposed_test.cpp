#include "messages/interfaces.hpp"
#include "runtime/exposed.hpp"

#include <catch2/catch.hpp>

using namespace coppice;

namespace {

rt::registry both() {
  rt::registry r;
  r.expose("gateway", gateway_actor{}, {{"submit", role::submitter}, {"missing", role::submitter}});
  r.expose("observatory", observatory_actor{}, {{"kill", role::admin}});
  return r;
}

ec code(const auto& x) {
  return x ? ec::none : x.error().code;
}

} // namespace

TEST_CASE("every handler that takes a caller is a method, and no other is") {
  auto r = both();
  caller admin{"a", role::admin};
  for (auto m : {"info", "missing", "submit", "poll", "status", "cancel", "log"})
    CHECK(r.find("gateway", m, admin));
  for (auto m : {"tree", "kill", "attempts", "locks", "events"})
    CHECK(r.find("observatory", m, admin));
  for (auto m : {"tick", "follow", "progress", ""}) {
    CHECK(code(r.find("gateway", m, admin)) == ec::unsupported);
    CHECK(code(r.find("observatory", m, admin)) == ec::unsupported);
  }
}

TEST_CASE("what an operator orders needs an admin, what he asks does not") {
  rt::registry r;
  r.expose("inspector", inspector_actor{},
           {{"drain", role::admin}, {"retry", role::admin}, {"drop", role::admin}, {"gone", role::admin}});
  for (auto m : {"drain", "retry", "drop", "gone"}) {
    CHECK(code(r.find("inspector", m, {"x", role::submitter})) == ec::forbidden);
    CHECK(r.find("inspector", m, {"x", role::admin}));
  }
  for (auto m : {"queue", "nodes", "partials", "explain"}) CHECK(r.find("inspector", m, {"x", role::observer}));
  CHECK(code(r.find("inspector", "done", {"x", role::admin})) == ec::unsupported);
}

TEST_CASE("a method needs its role or a higher one") {
  auto r = both();
  for (auto [held, allowed] :
       {std::pair{role::observer, false}, {role::submitter, false}, {role::admin, true}, {role::node, true}})
    CHECK(r.find("observatory", "kill", {"x", held}).has_value() == allowed);
  CHECK(r.find("gateway", "poll", {"x", role::observer}));
  CHECK(code(r.find("gateway", "submit", {"x", role::observer})) == ec::forbidden);
}

TEST_CASE("the message that an actor gets names the caller whom BRIDGE knows") {
  auto found = both().find("gateway", "poll", {"lena", role::submitter});
  REQUIRE(found);
  poll_request m;
  m.id.bytes.fill(1);
  auto message = found->method.decode({"lena", role::submitter}, wire::encode(m));
  REQUIRE(message);
  REQUIRE(message->match_elements<caf::atom_value, caller, poll_request>());
  CHECK(message->get_as<caf::atom_value>(0) == caf::atom("poll"));
  CHECK(message->get_as<caller>(1) == caller{"lena", role::submitter});
  CHECK(message->get_as<poll_request>(2) == m);
}

TEST_CASE("an answer of another type than promised is not encoded") {
  auto found = both().find("gateway", "poll", {"lena", role::submitter});
  REQUIRE(found);
  std::string bytes;
  CHECK_FALSE(found->method.encode(caf::make_message(accepted{}), bytes));
  CHECK_FALSE(found->method.encode(caf::make_message(), bytes));
  CHECK(found->method.encode(caf::make_message(request_progress{}), bytes));
  CHECK(wire::decode<request_progress>(bytes) == request_progress{});
}

TEST_CASE("a message of many small values is refused before it becomes large") {
  auto found = both().find("gateway", "submit", {"lena", role::submitter});
  REQUIRE(found);
  std::string roots(70'000, '\x80'); // as many roots without fields
  std::string body = "\x81\x02\x81\x01\xdd" + std::string("\0\x01\x11\x70", 4) + roots;
  auto message = found->method.decode({}, body);
  REQUIRE_FALSE(message);
  CHECK(message.error().what.find("more than 65536 values") != std::string::npos);
}

TEST_CASE("to expose a method that is not there, or a name twice, is a bug") {
  rt::registry r;
  CHECK_THROWS_AS(r.expose("gateway", gateway_actor{}, {{"sumbit", role::admin}}), std::logic_error);
  r.expose("gateway", gateway_actor{});
  CHECK_THROWS_AS(r.expose("gateway", gateway_actor{}), std::logic_error);
}
