#include "nix/attributes.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace coppice::nix;

namespace {

using words = std::vector<std::string>;

derivation plain(const char* name, const char* value) {
  derivation drv;
  drv.env[name] = value;
  return drv;
}

derivation structured(std::string json) {
  derivation drv;
  drv.env["__json"] = std::move(json);
  return drv;
}

} // namespace

TEST_CASE("plain attributes are words, and true if they are 1") {
  const auto drv = plain("a", " x\ty\n\n z ");
  const auto all = *attributes::of(drv);
  CHECK(all.structured() == nullptr);
  CHECK(**all.words("a") == words{"x", "y", "z"});
  CHECK(*all.words("b") == std::nullopt);
  CHECK_FALSE(*all.flag("a"));
  const auto yes = plain("a", "1");
  CHECK(*attributes::of(yes)->flag("a"));
  const auto empty = plain("a", "");
  CHECK(attributes::of(empty)->words("a")->value().empty());
}

TEST_CASE("structured attributes hide the environment and are read by their types") {
  auto drv = structured(R"({"list": ["x y", ""], "yes": true, "no": false, "text": "x", "mixed": ["x", 1]})");
  drv.env["other"] = "1";
  const auto all = *attributes::of(drv);
  REQUIRE(all.structured());
  CHECK(**all.words("list") == words{"x y", ""});
  CHECK(*all.flag("yes"));
  CHECK_FALSE(*all.flag("no"));
  CHECK_FALSE(*all.flag("other"));
  CHECK(*all.words("other") == std::nullopt);
  CHECK_FALSE(all.flag("text"));
  CHECK_FALSE(all.words("text"));
  CHECK(all.words("mixed").error().what.find("'mixed'") != std::string::npos);
}

TEST_CASE("what is no JSON object is refused, also if it is nested without end") {
  for (const char* wrong : {"", "1", "[]", "{", "{} x", "{\"a\": \"\xff\"}", "nul"}) {
    INFO(wrong);
    const auto drv = structured(wrong);
    CHECK_FALSE(attributes::of(drv));
  }
  auto nested = [](std::size_t depth) { return "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}"; };
  const auto good = structured(nested(attributes_depth_max - 1)), bad = structured(nested(attributes_depth_max + 1)),
             endless = structured("{\"a\":" + std::string(5'000'000, '['));
  CHECK(attributes::of(good));
  CHECK_FALSE(attributes::of(bad));
  CHECK_FALSE(attributes::of(endless));
}
