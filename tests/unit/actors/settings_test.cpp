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

TEST_CASE("other machines are told of an address only if they can connect to it") {
  auto url = [](const char* http, const char* http_url = "") {
    node_settings s;
    s.http = http;
    s.http_url = http_url;
    return coppice::actors::url_for_others(s);
  };
  for (auto own : {"127.0.0.1:0", "127.0.0.1:8080", "localhost:8080", "[::1]:8080", "0.0.0.0:8080", "[::]:8080",
                   "10.0.0.7:0", "8080"})
    CHECK(url(own).empty());
  CHECK(url("10.0.0.7:8080") == "http://10.0.0.7:8080");
  CHECK(url("[fd00::7]:8080") == "http://[fd00::7]:8080");
  CHECK(url("0.0.0.0:8080", "http://elm:8080/") == "http://elm:8080");
  CHECK(url("127.0.0.1:0", "http://127.0.0.1:9") == "http://127.0.0.1:9"); // whoever says so means it
}
