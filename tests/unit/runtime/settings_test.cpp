#include "messages/client.hpp"
#include "runtime/settings.hpp"

#include <catch2/catch.hpp>

#include <fstream>

using namespace coppice;
using namespace std::chrono_literals;

namespace {

struct worker_settings {
  std::uint16_t slots = 2;
  std::uint64_t memory_max = 0;
  COPPICE_STRUCT(worker_settings, 1, slots, 2, memory_max)
};
struct peer_settings {
  std::string name;
  coppice::role role = role::observer;
  COPPICE_STRUCT(peer_settings, 1, name, 2, role)
};
struct sample_settings {
  std::string listen = "tcp://127.0.0.1:5000";
  bool verbose = false;
  std::int32_t priority = 0;
  std::vector<std::string> roles{"work"};
  std::chrono::milliseconds renew{100};
  std::chrono::seconds ttl{20};
  worker_settings worker;
  std::vector<peer_settings> peer;
  std::optional<std::string> key;
  node_id node;
  double share = 1;
  COPPICE_STRUCT(sample_settings, 1, listen, 2, verbose, 3, priority, 4, roles, 5, renew, 6, ttl, 7, worker, 8, peer, 9,
                 key, 10, node, 11, share)
};

expected<sample_settings> read(std::string_view text) {
  return rt::from_toml<sample_settings>(text, "node.toml");
}

std::string why(std::string_view text) {
  auto x = read(text);
  REQUIRE_FALSE(x);
  CHECK(x.error().code == ec::invalid);
  return x.error().what;
}

} // namespace

TEST_CASE("settings of every type are read by name") {
  auto x = read(R"(
listen = "tcp://0.0.0.0:1"
verbose = true
priority = -7
roles = ["coordinate", "store"]
renew = "5 s"
ttl = "2 min"
key = "k"
node = "alder"
share = 0.5
worker = { slots = 4, memory_max = "64 MiB" }
[[peer]]
name = "birch"
role = "node"
[[peer]]
name = "cedar"
)");
  REQUIRE(x);
  sample_settings wanted{"tcp://0.0.0.0:1",
                         true,
                         -7,
                         {"coordinate", "store"},
                         5000ms,
                         120s,
                         {4, 64 << 20},
                         {{"birch", role::node}, {"cedar", role::observer}},
                         "k",
                         {"alder"},
                         0.5};
  CHECK(*x == wanted);
}

TEST_CASE("an empty settings file gives the defaults") {
  CHECK(read("") == sample_settings{});
}

TEST_CASE("an unknown key names file, line and the nearest known key") {
  CHECK(why("verbose = true\nlisten_ = \"x\"\n") ==
        "node.toml:2: listen_: unknown key; the nearest known one is 'listen'");
  CHECK(why("[worker]\nslot = 1") == "node.toml:2: worker.slot: unknown key; the nearest known one is 'slots'");
}

TEST_CASE("a value of the wrong type names file, line and key") {
  CHECK(why("\nverbose = 1") == "node.toml:2: verbose: expected true or false, found an integer");
  CHECK(why("listen = 5") == "node.toml:1: listen: expected a string, found an integer");
  CHECK(why("worker = 5") == "node.toml:1: worker: expected a table, found an integer");
  CHECK(why("roles = [\"a\", 1]") == "node.toml:1: roles[1]: expected a string, found an integer");
  CHECK(why("priority = \"5\"") == "node.toml:1: priority: expected an integer, found a string");
  CHECK(why("[[peer]]\nrole = \"king\"") ==
        "node.toml:2: peer[0].role: 'king' is none of observer, submitter, admin, node");
}

TEST_CASE("integers out of their type's range are refused") {
  CHECK(why("worker.slots = 65536") == "node.toml:1: worker.slots: 65536 is out of range, 0 to 65535 are allowed");
  CHECK(why("worker.slots = -1").find("out of range") != std::string::npos);
  CHECK(why("priority = 3000000000").find("out of range") != std::string::npos);
}

TEST_CASE("sizes have units") {
  auto size = [](std::string_view text) { return read("worker.memory_max = " + std::string{text})->worker.memory_max; };
  CHECK(size("12") == 12);
  CHECK(size("\"12\"") == 12);
  CHECK(size("\"3 kB\"") == 3000);
  CHECK(size("\"3KiB\"") == 3072);
  CHECK(size("\"2 TiB\"") == 2ull << 40);
  for (auto bad : {"\"3 kb\"", "\"MiB\"", "\"-3 B\"", "\"3  B\"", "\"99999999 TiB\"", "\"\"", "1.5"})
    CHECK_FALSE(read("worker.memory_max = " + std::string{bad}));
}

TEST_CASE("durations have units and are never rounded") {
  CHECK(read("renew = \"200 ms\"")->renew == 200ms);
  CHECK(read("renew = \"1 h\"")->renew == 1h);
  CHECK(read("ttl = \"1 d\"")->ttl == 24h);
  CHECK(read("ttl = \"2000 ms\"")->ttl == 2s);
  for (auto bad : {"\"200 ms\"", "\"-1 s\"", "\"1\"", "\"s\"", "1", "\"1 fortnight\"", "\"999999999999 d\""})
    CHECK_FALSE(read("ttl = " + std::string{bad}));
}

TEST_CASE("text that is not TOML names the line") {
  CHECK(why("listen = \"x\"\nverbose = = 1").starts_with("node.toml:2: "));
  CHECK(why("listen = \"a\"\nlisten = \"b\"").starts_with("node.toml:2: "));
}

TEST_CASE("characters outside ASCII are for strings and comments") {
  for (auto* text : {"\xef\xbb\xbe"
                     "c",
                     "\n\u00fc = 1", "\nlisten = \u201cx\u201d", "\n[\u69cb]", "\nlisten = \"x\" \u00e9",
                     "\nlisten = 'a\\' \u00e9", "\nlisten = \"\"\"a\"\"\"\"\" \u00e9"})
    CHECK(why(text).starts_with("node.toml:"));
  CHECK(why("\n\u00fc = 1").starts_with("node.toml:2: "));
  CHECK(why("\n'\u00fc' = 1").starts_with("node.toml:2: \u00fc: unknown key"));
  auto x = read("# \u00fc\nlisten = \"\\\"\u00fc'\" # \u69cb \"\nkey = \'\'\'\n\u00fc\'\"\'\'\'\'\nroles = "
                "[\"\"\"\n\u00fc\"\"\"\"\"]\nnode = \"\"\n");
  REQUIRE(x);
  CHECK(x->listen == "\"\u00fc'");
  CHECK(x->key == "\u00fc'\"'");
  CHECK(x->roles == std::vector<std::string>{"\u00fc\"\""});
  CHECK(read("\xef\xbb\xbfverbose = true"));
  CHECK(read("listen = \"\"\"\\\n \u00a0\u00fc\"\"\"")->listen == "\u00a0\u00fc");
  for (auto* text : {"listen = \"\xff\"", "listen = \"\\U001000ff\""})
    CHECK(why(text) == "node.toml:1: listen: is not UTF-8");
  // toml++ reads on after the number
  CHECK(why("\nnode = 52'\"\u028b8").starts_with("node.toml:2: "));
}

TEST_CASE("a list of strings may be one string, and no other list may") {
  CHECK(read("roles = \"work\"")->roles == std::vector<std::string>{"work"});
  CHECK(read("roles = \"\"")->roles.empty());
  CHECK(read("roles = " + rt::toml_quoted(std::vector<std::string>{"a", "b\""}))->roles ==
        std::vector<std::string>{"a", "b\""});
  CHECK(why("roles = 1").find("a list") != std::string::npos);
  CHECK(why("peer = \"oak\"").find("a list") != std::string::npos);
}

TEST_CASE("a settings file that is not there is not_found") {
  auto x = rt::read_settings<sample_settings>("/nonexistent/node.toml");
  REQUIRE_FALSE(x);
  CHECK(x.error().code == ec::not_found);
}

TEST_CASE("a quoted string reads back") {
  std::string s = "a\"b\\c\nd\x01 größe";
  CHECK(read("listen = " + rt::toml_quoted(s))->listen == s);
}
