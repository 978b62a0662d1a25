#include "actors/settings.hpp"
#include "runtime/settings.hpp"

#include <catch2/catch.hpp>

using coppice::actors::node_settings;

TEST_CASE("the documented configuration says the defaults, all of them") {
  auto documented = coppice::rt::read_settings<node_settings>(COPPICE_SOURCE_DIR "/config/node.toml");
  INFO((documented ? std::string{} : documented.error().what));
  REQUIRE(documented);
  CHECK(*documented == node_settings{});
}

TEST_CASE("a key that does not exist is an error that names the nearest one") {
  auto wrong = coppice::rt::from_toml<node_settings>("max_job = 3\n", "node.toml");
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().what.find("node.toml:1") != std::string::npos);
  CHECK(wrong.error().what.find("max_jobs") != std::string::npos);
}
