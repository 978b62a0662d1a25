#include "apps/common/evaluate.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace coppice;
using namespace coppice::app;

namespace {

const std::string hash_part(32, '0');
using strings = std::vector<std::string>;

} // namespace

TEST_CASE("evaluation in a private store is cut off from other stores' settings") {
  const evaluation what{{"default.nix", "-odd.nix"}, {"all"}, {{"n", "1 + 1"}}, {{"salt", "x y"}}};
  const auto call =
      instantiate_command("/bin/ni", what, {"/home/a b/eval"},
                          {"NIX_STORE_DIR=/other", "NIX_PATH=nixpkgs=/n", "NIX_REMOTE=daemon", "HOME=/h"});
  CHECK(call.argv == strings{"/bin/ni", "--option", "build-users-group", "", "--option", "substituters", "", "-A",
                             "all", "--arg", "n", "1 + 1", "--argstr", "salt", "x y", "default.nix", "./-odd.nix"});
  CHECK(call.env == strings{"NIX_PATH=nixpkgs=/n", "HOME=/h", "NIX_REMOTE=local?root=/home/a%20b/eval",
                            "NIX_CONF_DIR=/home/a b/eval/etc", "NIX_USER_CONF_FILES="});
}

TEST_CASE("evaluation in the machine's store keeps the environment") {
  const auto call = instantiate_command("/bin/ni", {{"x.nix"}, {}, {}, {}}, {"/"}, {"NIX_REMOTE=daemon"});
  CHECK(call.argv == strings{"/bin/ni", "x.nix"});
  CHECK(call.env == strings{"NIX_REMOTE=daemon"});
}

TEST_CASE("a root is a derivation and the outputs behind '!'") {
  const auto all = parse_root("/nix/store/" + hash_part + "-x.drv");
  REQUIRE(all);
  CHECK(all->drv.name() == "x.drv");
  CHECK(all->outputs.empty());
  CHECK(parse_root("dir/" + hash_part + "-x.drv!dev,man")->outputs == strings{"dev", "man"});
  CHECK_FALSE(parse_root(hash_part + "-x.drv!"));
  CHECK_FALSE(parse_root(hash_part + "-x"));
  CHECK_FALSE(parse_root("x.drv"));
}

TEST_CASE("each line that nix-instantiate prints is a root, repeated ones count once") {
  const auto line = "/nix/store/" + hash_part + "-x.drv";
  const auto roots = parse_instantiated(line + "\n" + line + "!dev\n" + line + "\n");
  REQUIRE(roots);
  REQUIRE(roots->size() == 2);
  CHECK((*roots)[1].outputs == strings{"dev"});
  CHECK_FALSE(parse_instantiated("warning\n"));
}
