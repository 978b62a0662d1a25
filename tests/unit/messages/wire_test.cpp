#include "messages/interfaces.hpp"
#include "messages/wire.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace coppice;

namespace {

std::string bytes(std::string_view hex) {
  std::string out;
  int high = -1;
  for (char c : hex) {
    if (c == ' ' || c == '\n') continue;
    int digit = c <= '9' ? c - '0' : c - 'a' + 10;
    if (high < 0)
      high = digit;
    else {
      out += static_cast<char>(high << 4 | digit);
      high = -1;
    }
  }
  return out;
}

std::string hex(std::string_view in) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (char c : in) {
    out += digits[static_cast<unsigned char>(c) >> 4];
    out += digits[c & 15];
  }
  return out;
}

std::string repeat(std::string_view what, std::size_t n) {
  std::string out;
  while (n-- > 0)
    out += what;
  return out;
}

nix::store_path path(std::string_view name) {
  return *nix::store_path::from_base_name("0123456789abcdfghijklmnpqrsvwxyz-" + std::string{name});
}

template <class Id>
Id id(std::uint8_t first) {
  Id x;
  x.bytes.fill(first);
  return x;
}

submit_request a_submit() {
  submit_request m;
  m.id = id<request_id>(0x11);
  m.body.roots = {{path("a.drv"), {"out"}}};
  m.body.closure = id<blob_id>(0x22);
  m.body.priority = -5;
  m.body.keep_going = true;
  return m;
}

request_progress a_progress() {
  request_progress m;
  m.id = id<request_id>(0x11);
  m.state = request_state::failed;
  m.next = 300;
  m.stream = 7;
  step_event e;
  e.seq = 300;
  e.drv = path("a.drv");
  e.state = step_state::failed;
  e.node.value = "n1";
  e.token.value = 3;
  e.failure = failure::timed_out;
  e.text = "too slow";
  e.duration_ms = -1;
  m.events = {e};
  m.counts.total = 1;
  m.result.emplace().state = request_state::failed;
  return m;
}

/// Every message of the codec tests, in one place for the truncation and bit flip tests.
std::vector<std::string> samples() {
  ledger::transaction t{ledger::commit{id<inhash>(1), {9}, {{"out", {}}}}};
  ledger::lock_state row;
  row.failed.emplace().reason = "why";
  return {wire::encode(a_submit()), wire::encode(a_progress()), wire::encode(t),
          wire::encode(ledger::answer{ledger::lock_states{{row}}}), wire::encode(ledger::attempt_rows{{{}}})};
}

template <class T>
std::string reason(std::string_view b, const wire::limits& l = {}) {
  auto x = wire::decode<T>(b, l);
  REQUIRE_FALSE(x);
  REQUIRE(x.error().code == ec::bad_message);
  return x.error().what;
}

/// A struct of version 1, and the same one in version 2.
struct thing_v1 {
  std::uint32_t size = 7;
  std::string name;
  COPPICE_STRUCT(thing_v1, 1, size, 2, name)
};
struct thing_v2 {
  std::uint32_t size = 7;
  std::string name;
  std::vector<std::string> tags{"none"};
  std::optional<request_root> root;
  COPPICE_STRUCT(thing_v2, 1, size, 2, name, 5, tags, 6, root)
};
struct all_kinds {
  std::map<std::string, std::uint16_t> ports;
  std::set<std::string> names;
  double ratio = 0;
  std::int8_t small = 0;
  bool flag = false;
  std::optional<std::int64_t> maybe;
  COPPICE_STRUCT(all_kinds, 1, ports, 2, names, 3, ratio, 4, small, 5, flag, 6, maybe)
};

} // namespace

TEST_CASE("a submit_request has these bytes") {
  auto golden = bytes("82"                                       // submit_request: 2 fields
                      "01 c410 11111111111111111111111111111111" // id: 16 bytes
                      "02 86"                                    // body: 6 fields
                      "01 91 82"                                 // roots: 1 root of 2 fields
                      "01 d926 303132333435363738396162636466"   // drv: base name, 38 characters
                      "6768696a6b6c6d6e70717273767778797a2d612e647276"
                      "02 91 a36f7574"                                                           // outputs: ["out"]
                      "02 c420 2222222222222222222222222222222222222222222222222222222222222222" // closure
                      "03 fb"                                                                    // priority: -5
                      "04 c3"                                                                    // keep_going: true
                      "05 00"                                                                    // when_client_leaves: proceed
                      "06 c2");                                                                  // rebuild: false
  CHECK(hex(wire::encode(a_submit())) == hex(golden));
  CHECK(wire::decode<submit_request>(golden) == a_submit());
}

TEST_CASE("a poll_request has these bytes") {
  poll_request m{id<request_id>(0xab), 70000, 10000};
  auto golden = bytes("83"                                       // poll_request: 3 fields
                      "01 c410 abababababababababababababababab" // id
                      "02 ce00011170"                            // after: 70000
                      "03 cd2710");                              // wait_ms: 10000
  CHECK(hex(wire::encode(m)) == hex(golden));
  CHECK(wire::decode<poll_request>(golden) == m);
}

TEST_CASE("a request_progress has these bytes") {
  auto golden = bytes("8a"
                      "01 c410 11111111111111111111111111111111"
                      "02 02"     // state: failed
                      "03 cd012c" // next: 300
                      "04 07"     // stream
                      "05 c2"     // lost: false
                      "06 91 8b"  // one event of 11 fields
                      "   01 cd012c"
                      "   02 d926 303132333435363738396162636466"
                      "           6768696a6b6c6d6e70717273767778797a2d612e647276"
                      "   03 c420 0000000000000000000000000000000000000000000000000000000000000000"
                      "   04 05 05 a26e31 06 03 07 02" // state failed, node "n1", token 3, timed_out
                      "   08 a8746f6f20736c6f77"       // text: "too slow"
                      "   09 a0 0a ff 0b 00"           // log_tail "", duration_ms -1, bytes 0
                      "07 90"                          // running: none
                      "08 88 01 01 02 00 03 00 04 00 05 00 06 00 07 00 08 00"
                      "09 86 01 02 02 90 03 90 04 00 05 00 06 a0" // result
                      "0a a0");                                    // waits_for: ""
  CHECK(hex(wire::encode(a_progress())) == hex(golden));
  CHECK(wire::decode<request_progress>(golden) == a_progress());
}

TEST_CASE("a transaction is [number, body]") {
  ledger::transaction m{ledger::keep_alive{id<session_id>(5)}};
  auto golden = bytes("81 01" // transaction: body
                      "92 01" // the second kind of transaction
                      "82 01 c410 05050505050505050505050505050505 02 00");
  CHECK(hex(wire::encode(m)) == hex(golden));
  CHECK(wire::decode<ledger::transaction>(golden) == m);
}

TEST_CASE("a struct without fields is an empty map") {
  CHECK(hex(wire::encode(get_info{})) == "80");
  CHECK(wire::decode<get_info>("\x80"));
}

TEST_CASE("every kind of value survives") {
  all_kinds m{{{"a", 1}, {"b", 65535}}, {"x", "y"}, 0.25, -128, true, -1};
  CHECK(wire::decode<all_kinds>(wire::encode(m)) == m);
  CHECK(wire::decode<all_kinds>(wire::encode(all_kinds{})) == all_kinds{});
}

TEST_CASE("a new reader gives absent fields their defaults") {
  CHECK(wire::decode<thing_v2>(wire::encode(thing_v1{3, "n"})) == thing_v2{3, "n", {"none"}, {}});
}

TEST_CASE("an old reader skips unknown fields, whatever they contain") {
  thing_v2 m{3, "n", {"a", "b"}, request_root{path("r.drv"), {"out", "dev"}}};
  CHECK(wire::decode<thing_v1>(wire::encode(m)) == thing_v1{3, "n"});
}

TEST_CASE("text may come as str or as bin and need not be UTF-8") {
  CHECK(wire::decode<thing_v1>(bytes("81 02 a2ff00")) == thing_v1{7, std::string("\xff\0", 2)});
  CHECK(wire::decode<thing_v1>(bytes("81 02 c402ff00")) == thing_v1{7, std::string("\xff\0", 2)});
}

TEST_CASE("an enum beyond its last value is refused") {
  CHECK(reason<request_result>(bytes("81 01 04")) == "cannot read request_result.state: 4 is more than 3");
}

TEST_CASE("a variant beyond its last alternative is refused") {
  constexpr auto last = std::variant_size_v<ledger::any_transaction> - 1;
  CHECK(reason<ledger::transaction>(bytes("81 01 92 7f 80")) ==
        "cannot read transaction.body: 127 is more than " + std::to_string(last));
  CHECK(reason<ledger::transaction>(bytes("81 01 91 01")) ==
        "cannot read transaction.body: expected [index, value], found an array of 1");
}

TEST_CASE("the reason names the place") {
  CHECK(reason<request_body>(bytes("81 01 92 80 81 02 91 07")) ==
        "cannot read request_body.roots[1].outputs[0]: expected a string, found an integer");
}

TEST_CASE("a store path that climbs out is refused") {
  CHECK(reason<request_root>(bytes("81 01 a9") + "../../etc").find("request_root.drv") != std::string::npos);
  CHECK_FALSE(wire::decode<request_root>(bytes("81 01 d926") + "0123456789abcdfghijklmnpqrsvwxyz/a.drv"));
}

TEST_CASE("an id of the wrong length is refused") {
  CHECK(reason<cancel_request>(bytes("81 01 c402 1111")) ==
        "cannot read cancel_request.id: expected 16 bytes, found 2");
}

TEST_CASE("numbers out of range are refused") {
  CHECK(reason<poll_request>(bytes("81 03 cf0000000100000000")).find("4294967296 is more than") != std::string::npos);
  CHECK(reason<poll_request>(bytes("81 03 ff")).find("expected an integer, found a negative") != std::string::npos);
  CHECK(reason<all_kinds>(bytes("81 04 d1ff7f")).find("-129 is less than -128") != std::string::npos);
  CHECK(reason<all_kinds>(bytes("81 03 cb7ff8000000000000")).find("finite") != std::string::npos);
}

TEST_CASE("a field given twice is refused") {
  CHECK(reason<poll_request>(bytes("82 02 01 02 01")) == "cannot read poll_request.after: given twice");
}

TEST_CASE("a key that is not a number is refused") {
  CHECK(reason<poll_request>(bytes("81 a161 01")) == "cannot read poll_request: expected an integer, found a string");
}

TEST_CASE("bytes after the message are refused") {
  CHECK(reason<get_info>(bytes("80 80")) == "cannot read get_info: 1 bytes after the message");
}

TEST_CASE("every message cut short anywhere is refused") {
  for (const auto& whole : samples())
    for (std::size_t n = 0; n < whole.size(); ++n) {
      std::string_view cut{whole.data(), n};
      CAPTURE(hex(cut));
      CHECK_FALSE(wire::decode<submit_request>(cut));
      CHECK_FALSE(wire::decode<ledger::transaction>(cut));
      CHECK_FALSE(wire::decode<request_progress>(cut));
    }
}

TEST_CASE("a container that announces 4 billion values costs nothing") {
  for (auto head : {"dd ff000000", "df ff000000", "dd ffffffff", "df ffffffff", "dc ffff", "de ffff"}) {
    CHECK(reason<submit_request>(bytes(head)).find("more values than there are bytes") != std::string::npos);
    CHECK(reason<submit_request>(bytes("81 7f") + bytes(head)).find("more values than") != std::string::npos);
  }
}

TEST_CASE("a string that announces 4 GiB costs nothing") {
  for (auto head : {"db ffffffff", "c6 ffffffff", "da ffff", "c5 ffff", "d9 ff", "c4 ff", "bf"})
    CHECK(reason<thing_v1>(bytes("81 02") + bytes(head)).find("truncated") != std::string::npos);
}

TEST_CASE("deep nesting is refused, also where nobody reads it") {
  CHECK(reason<get_info>(repeat("\x91", 100000)).find("nested deeper than 32") != std::string::npos);
  CHECK(reason<get_info>(bytes("81 7f") + repeat("\x91", 1000) + "\x01").find("nested deeper") != std::string::npos);
  CHECK(reason<get_info>(bytes("81 7f") + repeat("\x81\x01", 1000) + "\x01").find("nested deeper") !=
        std::string::npos);
  CHECK(wire::decode<get_info>(bytes("81 7f") + repeat("\x91", 31) + "\x01"));
}

TEST_CASE("more values or longer strings than allowed are refused") {
  wire::limits l{.elements_max = 100, .string_bytes_max = 10};
  CHECK(reason<get_info>(bytes("81 7f dc 00c8") + repeat("\x01", 200), l).find("more than 100 values") !=
        std::string::npos);
  CHECK(reason<thing_v1>(bytes("81 02 ab") + repeat("x", 11), l).find("a string of 11 bytes") != std::string::npos);
  CHECK(wire::decode<thing_v1>(bytes("81 02 aa") + repeat("x", 10), l));
}

TEST_CASE("extension types and the byte that msgpack never uses are refused") {
  for (auto b : {"c1", "d4 01 02", "c7 01 01 01", "c9 ffffffff 01", "d8 01 00000000000000000000000000000000"}) {
    CHECK_FALSE(wire::decode<get_info>(bytes(b)));
    CHECK_FALSE(wire::decode<get_info>(bytes("81 7f") + bytes(b)));
  }
}

TEST_CASE("nothing at all, and every single byte, is refused") {
  CHECK_FALSE(wire::decode<submit_request>(""));
  for (int b = 0; b < 256; ++b) {
    std::string one(1, static_cast<char>(b));
    CHECK(wire::decode<submit_request>(one).has_value() == (b == 0x80));
  }
}

TEST_CASE("values of the wrong kind are refused") {
  for (auto b : {"c0", "c2", "00", "ff", "cb3ff0000000000000", "a161", "c40161", "90", "91 80"}) {
    CAPTURE(b);
    CHECK_FALSE(wire::decode<submit_request>(bytes(b)));
    CHECK_FALSE(wire::decode<submit_request>(bytes("81 02") + bytes(b)));
  }
}

TEST_CASE("random bytes and flipped bits never do more than fail") {
  auto seed = Catch::rngSeed() ? Catch::rngSeed() : std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng{seed};
  auto all = samples();
  for (int i = 0; i < 20000; ++i) {
    auto b = all[rng() % all.size()];
    for (auto n = 1 + rng() % 4; n > 0; --n)
      b[rng() % b.size()] = static_cast<char>(rng());
    if (auto x = wire::decode<request_progress>(b)) CHECK(wire::decode<request_progress>(wire::encode(*x)) == *x);
    if (auto x = wire::decode<ledger::transaction>(b)) CHECK(wire::decode<ledger::transaction>(wire::encode(*x)) == *x);
  }
}
