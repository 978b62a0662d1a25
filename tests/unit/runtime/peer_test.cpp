#include "messages/wire.hpp"
#include "runtime/peer.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::rt;
using namespace std::chrono_literals;

namespace {

struct fixture {
  instant now{1h};
  std::shared_ptr<send_window> window = std::make_shared<send_window>();
  peer p{{.node = {"alder"}, .text = "1.0"}, window};

  peer::effects hear(frame_kind kind, std::uint64_t id = 0, std::string_view body = {}) {
    envelope e;
    e.kind = kind;
    e.id = id;
    return p.heard(e, body, now);
  }
  peer::effects greet(std::uint32_t min = 1, std::uint32_t max = 1, std::uint64_t stream = 7,
                      std::string magic = "coppice") {
    return hear(frame_kind::hello, 0, wire::encode(hello{std::move(magic), min, max, "test", "", stream}));
  }
  /// Hands over one reply; false if congested.
  bool reply(std::size_t bytes, peer::effects* effects = nullptr) {
    if (!window->take(bytes)) return false;
    auto out = p.sent(bytes);
    if (effects) *effects = out;
    return true;
  }
};

template <class T>
const T* only(const peer::effects& e) {
  return e.empty() || (e.size() > 1 && !std::holds_alternative<peer::opened>(e[1])) ? nullptr : std::get_if<T>(&e[0]);
}
frame_kind sent(const peer::effects& e) {
  const auto* s = only<peer::send>(e);
  return s ? s->what.head.kind : frame_kind::none;
}
ec refused(const peer::effects& e) {
  return sent(e) == frame_kind::refuse ? error_of(only<peer::send>(e)->what.head).code : ec::none;
}

} // namespace

TEST_CASE("a hello is welcomed with the agreed version") {
  fixture f;
  auto e = f.greet(1, 9);
  REQUIRE(sent(e) == frame_kind::welcome);
  auto w = wire::decode<welcome>(only<peer::send>(e)->what.body);
  REQUIRE(w);
  CHECK(w->version == protocol_version_max);
  CHECK(f.p.version() == protocol_version_max);
  CHECK(w->node.value == "alder");
  CHECK(f.p.open());
}

TEST_CASE("versions without overlap are refused as unsupported") {
  fixture f;
  CHECK(refused(f.greet(protocol_version_max + 1, 9)) == ec::unsupported);
  CHECK(refused(f.greet(0, 0)) == ec::unsupported);
  CHECK_FALSE(f.p.open());
}

TEST_CASE("a hello with another magic opens nothing and counts") {
  fixture f;
  auto e = f.greet(1, 1, 7, "HTTP");
  REQUIRE(e.size() == 2);
  CHECK(std::holds_alternative<peer::bad>(e[1]));
  CHECK_FALSE(f.p.open());
}

TEST_CASE("before the hello everything is refused") {
  fixture f;
  for (auto kind : {frame_kind::request, frame_kind::ping, frame_kind::pong, frame_kind::reply, frame_kind::none})
    CHECK(refused(f.hear(kind)) == ec::unavailable);
}

TEST_CASE("a request of an open session is dispatched") {
  fixture f;
  f.greet();
  CHECK(only<peer::dispatch>(f.hear(frame_kind::request, 5))->head.id == 5);
}

TEST_CASE("a request in another version than agreed is an error") {
  fixture f;
  f.greet();
  envelope e;
  e.kind = frame_kind::request;
  e.version = 2;
  CHECK(sent(f.p.heard(e, {}, f.now)) == frame_kind::error);
}

TEST_CASE("frames that only who is dialled sends are bad from who dials") {
  fixture f;
  f.greet();
  for (auto kind : {frame_kind::welcome, frame_kind::refuse, frame_kind::none})
    CHECK(only<peer::bad>(f.hear(kind)));
}

TEST_CASE("a dialler takes a welcome once, then requests and answers") {
  fixture f;
  f.p = peer{{.node = {"birch"}, .text = "1.0", .born = {3}}, f.window, peer::side::dials};
  auto said = wire::decode<hello>(f.p.greeting(f.now).body);
  REQUIRE(said);
  CHECK(said->name == "birch");
  CHECK(said->incarnation.value == 3);
  CHECK(only<peer::bad>(f.hear(frame_kind::request, 1)));
  CHECK_FALSE(f.p.open());
  auto welcomed = wire::encode(welcome{1, {"alder"}, "1.0", 1 << 20, 2000, {9}});
  auto e = f.hear(frame_kind::welcome, 0, welcomed);
  auto* opened = only<peer::opened>(e);
  REQUIRE(opened);
  CHECK(opened->node.value == "alder");
  CHECK(opened->born.value == 9);
  CHECK(f.p.open());
  CHECK(only<peer::dispatch>(f.hear(frame_kind::request, 1)));
  CHECK(only<peer::dispatch>(f.hear(frame_kind::cast)));
  CHECK(only<peer::answered>(f.hear(frame_kind::reply, 1)));
  CHECK(only<peer::answered>(f.hear(frame_kind::error, 1)));
  CHECK(only<peer::bad>(f.hear(frame_kind::welcome, 0, welcomed)));
  CHECK(only<peer::bad>(f.hear(frame_kind::hello)));
}

TEST_CASE("a dialler that is refused, or welcomed with a version it does not speak, is told why") {
  fixture f;
  f.p = peer{{.node = {"birch"}, .text = "1.0"}, f.window, peer::side::dials};
  CHECK(only<peer::refused>(f.hear(frame_kind::refuse)));
  CHECK(only<peer::refused>(f.hear(frame_kind::welcome, 0, wire::encode(welcome{9, {"alder"}, "", 0, 0, {}}))));
  CHECK(only<peer::refused>(f.hear(frame_kind::welcome, 0, "rubbish")));
}

TEST_CASE("a second hello keeps the calls unless the stream is another") {
  fixture f;
  f.greet(1, 1, 7);
  CHECK(sent(f.greet(1, 1, 7)) == frame_kind::welcome);
  auto e = f.greet(1, 1, 8);
  REQUIRE(e.size() == 3);
  CHECK(std::holds_alternative<peer::forget_calls>(e[0]));
}

TEST_CASE("a ping is answered by a pong of the same id") {
  fixture f;
  f.greet();
  auto e = f.hear(frame_kind::ping, 42);
  REQUIRE(sent(e) == frame_kind::pong);
  CHECK(only<peer::send>(e)->what.head.id == 42);
}

TEST_CASE("silence is answered by pings and then by death") {
  fixture f;
  f.greet();
  f.now += 1900ms;
  CHECK(f.p.tick(f.now).empty());
  f.now += 100ms;
  CHECK(sent(f.p.tick(f.now)) == frame_kind::ping);
  CHECK(f.p.tick(f.now + 100ms).empty());
  f.now += 4s;
  CHECK(only<peer::dead>(f.p.tick(f.now)));
}

TEST_CASE("any frame is a sign of life") {
  fixture f;
  f.greet();
  for (int i = 0; i < 10; ++i) {
    f.now += 5s;
    CHECK_FALSE(only<peer::dead>(f.p.tick(f.now)));
    f.hear(frame_kind::request, 1);
  }
}

TEST_CASE("a connection that never says hello dies as well") {
  fixture f;
  f.hear(frame_kind::ping);
  f.now += 6s;
  CHECK(only<peer::dead>(f.p.tick(f.now)));
}

TEST_CASE("a peer that does not read is congested after 16 MiB or 4096 messages") {
  fixture f;
  f.greet();
  for (int i = 0; i < 16; ++i)
    CHECK(f.reply(1 << 20));
  CHECK_FALSE(f.reply(1));
  fixture g;
  g.greet();
  for (int i = 0; i < 4096; ++i)
    CHECK(g.reply(10));
  CHECK_FALSE(g.reply(10));
}

TEST_CASE("a pong proves that all before its ping was read, and no more") {
  fixture f;
  f.greet();
  peer::effects e;
  CHECK(f.reply(1 << 20, &e));
  CHECK(e.empty());
  CHECK(f.reply(1 << 20, &e)); // an eighth of the window is unproven
  REQUIRE(sent(e) == frame_kind::ping);
  auto probe = only<peer::send>(e)->what.head.id;
  for (int i = 0; i < 14; ++i)
    CHECK(f.reply(1 << 20));
  CHECK_FALSE(f.reply(1));
  f.hear(frame_kind::pong, probe + 1); // never asked
  CHECK_FALSE(f.reply(1));
  auto next = f.hear(frame_kind::pong, probe);
  CHECK(sent(next) == frame_kind::ping); // the other 14 MiB are to be proven too
  CHECK(f.reply(1 << 20));
  CHECK(f.reply(1 << 20));
  CHECK_FALSE(f.reply(1));
  f.hear(frame_kind::pong, only<peer::send>(next)->what.head.id);
  for (int i = 0; i < 14; ++i)
    CHECK(f.reply(1 << 20));
}

TEST_CASE("a ping repeated for silence proves what the former one would have") {
  fixture f;
  f.greet();
  CHECK(f.reply(3 << 20));
  f.now += 2s;
  auto e = f.p.tick(f.now);
  REQUIRE(sent(e) == frame_kind::ping);
  f.hear(frame_kind::pong, only<peer::send>(e)->what.head.id);
  for (int i = 0; i < 16; ++i)
    CHECK(f.reply(1 << 20));
}

TEST_CASE("who keeps to the rate is never limited") {
  rate_limit r{{.per_second = 10, .burst = 5}};
  instant now{1h};
  for (int i = 0; i < 1000; ++i)
    CHECK(r.take(now += 100ms) == rate_limit::verdict::admit);
}

TEST_CASE("who exceeds the rate is warned, then ignored, then banned for a minute") {
  using v = rate_limit::verdict;
  rate_limit r{{.per_second = 10, .burst = 2, .warnings = 3, .drops = 4}};
  instant now{1h};
  std::vector<v> got;
  for (int i = 0; i < 11; ++i)
    got.push_back(r.take(now));
  CHECK(got == std::vector<v>{v::admit, v::admit, v::slow_down, v::slow_down, v::slow_down, v::drop, v::drop, v::drop,
                              v::drop, v::banned, v::banned});
  CHECK(r.banned(now + 59s));
  CHECK(r.take(now + 61s) == v::admit);
}

TEST_CASE("a pause pays off the excess") {
  using v = rate_limit::verdict;
  rate_limit r{{.per_second = 10, .burst = 2, .warnings = 1, .drops = 1}};
  instant now{1h};
  for (int round = 0; round < 5; ++round) {
    CHECK(r.take(now) == v::admit);
    CHECK(r.take(now) == v::admit);
    CHECK(r.take(now) == v::slow_down);
    now += 1s;
  }
}

TEST_CASE("an error's code survives, and one from the future is unsupported") {
  CHECK(error_of(error_head(1, {ec::stale, "x"})) == error{ec::stale, "x"});
  envelope e;
  e.code = 255;
  CHECK(error_of(e).code == ec::unsupported);
  e.code = 0;
  CHECK(error_of(e).code == ec::unsupported);
}

TEST_CASE("a long reason is cut, and an envelope of any size decodes within bounds") {
  auto head = decode_head(encode_head(error_head(1, {ec::io, std::string(100000, 'x')})));
  REQUIRE(head);
  CHECK(head->what.size() == reason_bytes_max);
  envelope big;
  big.target = std::string(envelope_bytes_max + 1, 't');
  CHECK_FALSE(decode_head(encode_head(big)));
}

TEST_CASE("a request's envelope has these bytes") {
  envelope e;
  e.kind = frame_kind::request;
  e.id = 7;
  e.target = "gateway";
  e.method = "poll";
  std::string golden = "\x8a\x01\x01\x02\x04\x03\x07\x04\xa7gateway\x05\xa4poll\x06";
  golden += std::string("\x00\x07\xa0\x08\xa0\x09\xa0\x0a\x00", 9);
  CHECK(encode_head(e) == golden);
}

TEST_CASE("a bundle has these bytes, and is read as the frames that it was made of") {
  frame ask, tell;
  ask.head.kind = frame_kind::request;
  ask.head.version = 2;
  ask.head.id = 7;
  ask.head.target = "/a/b";
  ask.head.method = "m";
  ask.body = "\x91";
  tell.head.kind = frame_kind::cast;
  tell.head.version = 2;
  const std::vector<const frame*> frames{&ask, &tell};
  const auto all = bundle_of(frames);
  CHECK(all.head.kind == frame_kind::bundle);
  CHECK(all.head.version == 2);
  std::string golden = "\x94\xba\x8a\x01\x02\x02\x04\x03\x07\x04\xa4/a/b\x05\xa1m\x06";
  golden += std::string("\x00\x07\xa0\x08\xa0\x09\xa0\x0a\x00\xa1\x91\xb5", 12);
  golden += std::string("\x8a\x01\x02\x02\x09\x03\x00\x04\xa0\x05\xa0\x06\x00\x07\xa0\x08\xa0\x09\xa0\x0a\x00\xa0", 22);
  CHECK(all.body == golden);
  const auto read = decode_bundle(all.body);
  REQUIRE(read);
  REQUIRE(read->size() == 2);
  CHECK(decode_head((*read)[0].head)->id == 7);
  CHECK((*read)[0].body == ask.body);
  CHECK(decode_head((*read)[1].head)->kind == frame_kind::cast);
  for (std::size_t n = 0; n < golden.size(); ++n)
    CHECK_FALSE(decode_bundle(golden.substr(0, n)));
  CHECK_FALSE(decode_bundle(golden + "x"));
}

TEST_CASE("what is no bundle of frames, or too large a one, is refused with a reason") {
  auto refused = [](auto fill) {
    wire::writer w;
    fill(w);
    auto read = decode_bundle(w.take());
    REQUIRE_FALSE(read);
    CHECK(read.error().code == ec::bad_message);
    return read.error().what;
  };
  CHECK(refused([](auto& w) { w.array(1), w.str(""); }) == "cannot read bundle: half a frame");
  CHECK(refused([](auto& w) { w.array(2), w.str(""), w.uint(1); }).find("expected") != std::string::npos);
  CHECK(refused([](auto& w) { w.array(2), w.array(0), w.str(""); }).find("nested") != std::string::npos);
  CHECK(refused([](auto& w) {
          w.array(2 * bundle_frames_max + 2);
          for (std::size_t i = 0; i < 2 * bundle_frames_max + 2; ++i)
            w.str("");
        }).find("values") != std::string::npos);
  CHECK(refused([](auto& w) { w.array(2), w.str(""), w.str(std::string(bundle_bytes_max + 1, 'x')); }).find("bytes") !=
        std::string::npos);
}
