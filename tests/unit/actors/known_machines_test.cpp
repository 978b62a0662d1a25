#include "actors/place/known_machines.hpp"

#include <catch2/catch.hpp>
#include <unistd.h>

#include <fstream>

using namespace coppice;
using namespace coppice::actors;

namespace fs = std::filesystem;

TEST_CASE("known machines are read as they were written, and a damaged file is told as such") {
  const auto dir = fs::temp_directory_path() / ("coppice-known-machines-" + std::to_string(::getpid()));
  fs::create_directories(dir);
  const auto file = dir / "machines";
  CHECK(read_known_machines(file).value().rows.empty()); // there is none yet
  known_machines all;
  all.rows.push_back({{{"oak"}, {7}, 0, 4, {"x86_64-linux"}, {"kvm"}}, 1'600'000'000'000});
  REQUIRE(write_known_machines(file, all));
  CHECK(read_known_machines(file).value() == all);
  std::ofstream{file} << "rubbish";
  auto broken = read_known_machines(file);
  REQUIRE_FALSE(broken);
  CHECK(broken.error().code == ec::corrupt);
  CHECK(broken.error().what.find(file.string()) != std::string::npos);
  all.rows[0].what.node.value = "a/b";
  REQUIRE(write_known_machines(file, all));
  CHECK(read_known_machines(file).error().code == ec::corrupt);
  fs::remove_all(dir);
}
