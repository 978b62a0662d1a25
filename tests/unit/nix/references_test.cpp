#include "fixtures.hpp"
#include "nix/references.hpp"

#include <random>

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

const std::string one = "9wfjklzy9nqsnscmp1kl17sy5a32h67f", two = "bb70gkx7c0hr4lzyjjl4ycy8cpgn9bjx";

std::set<store_path> candidates() {
  return {path("/nix/store/" + one + "-one"), path("/nix/store/" + two + "-two")};
}

std::set<std::string> found_in(std::string_view text, std::size_t chunk_bytes, const std::set<store_path>& among) {
  reference_scanner scanner{among};
  for (std::size_t at = 0; at < text.size(); at += chunk_bytes)
    scanner.feed(text.substr(at, chunk_bytes));
  std::set<std::string> names;
  for (const auto& seen : scanner.found())
    names.insert(std::string{seen.name()});
  return names;
}

std::set<std::string> found_in(std::string_view text) {
  return found_in(text, text.size() + 1, candidates());
}

} // namespace

TEST_CASE("a reference is found wherever it stands, and nothing else is") {
  using names = std::set<std::string>;
  CHECK(found_in("").empty());
  CHECK(found_in(one) == names{"one"});
  CHECK(found_in("/nix/store/" + two + "-two/bin") == names{"two"});
  CHECK(found_in(one + two) == names{"one", "two"});
  CHECK(found_in("aaaa" + one + "0000" + two) == names{"one", "two"}); // inside a longer run of base 32
  CHECK(found_in(one.substr(1)).empty());
  CHECK(found_in(one.substr(0, 16) + "-" + one.substr(16)).empty());
  CHECK(found_in(one.substr(0, 31) + two).count("one") == 0);
}

TEST_CASE("a reference is found at every place across the borders of chunks") {
  for (std::size_t before = 0; before < 70; ++before) {
    const auto text = std::string(before, before % 2 == 0 ? '/' : 'a') + one + std::string(40, '.');
    for (const std::size_t chunk_bytes : {1, 2, 5, 31, 32, 33, 64}) {
      INFO(before << " bytes before, chunks of " << chunk_bytes);
      CHECK(found_in(text, chunk_bytes, candidates()) == std::set<std::string>{"one"});
    }
  }
}

TEST_CASE("all paths that share a hash part are found with it") {
  auto among = candidates();
  among.insert(path("/nix/store/" + one + "-other"));
  CHECK(found_in("x" + one + "y", 100, among) == std::set<std::string>{"one", "other"});
}

TEST_CASE("in random texts the scanner finds what a plain search finds") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  CAPTURE(seed);
  std::mt19937 random{seed};
  for (int round = 0; round < 300; ++round) {
    std::string text;
    while (text.size() < 400) {
      switch (random() % 5) {
      case 0: text += one.substr(0, random() % 33); break;
      case 1: text += two.substr(random() % 32); break;
      case 2: text += random() % 8 == 0 ? two : "-"; break;
      case 3: text += std::string(random() % 40, 'a'); break;
      default: text += static_cast<char>(random() & 0xff);
      }
    }
    std::set<std::string> plain;
    if (text.find(one) != std::string::npos) plain.insert("one");
    if (text.find(two) != std::string::npos) plain.insert("two");
    CHECK(found_in(text, 1 + random() % 90, candidates()) == plain);
  }
}

TEST_CASE("references of the oracle's multi-output build are found") {
  // The builder of multi-out writes the path of out into dev.
  const auto out = path("/nix/store/85zx225g35p6aqz3zdrn028pig4h1kyj-multi-out");
  const auto built = read_json(data("generated/expected.json")).at("derivations").at("multi-out").at("built").at("dev");
  const auto nar = nar_of_file(out.to_string() + "\n");
  CHECK(hash{sha256(nar)}.sri() == built.at("narHash"));
  reference_scanner scanner{{out, path("/nix/store/6p2ndha6iazcr2vgzsc5fdn68b6389vw-multi-out-lib")}};
  scanner.feed(nar);
  CHECK(scanner.found() == paths(built.at("references")));
}
