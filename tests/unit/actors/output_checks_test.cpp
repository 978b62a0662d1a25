#include "actors/build/output_checks.hpp"

#include <catch2/catch.hpp>

using namespace coppice;
using namespace coppice::actors;

namespace {

nix::store_path path(std::size_t i) {
  auto digits = std::to_string(i);
  return *nix::store_path::from_base_name(std::string(32 - digits.size(), '0') + digits + "-x");
}

/// That many outputs, each of which refers to the next one.
std::vector<realised_output> chain(std::size_t length) {
  std::vector<realised_output> outputs(length);
  for (std::size_t i = 0; i < length; ++i) {
    outputs[i].name = "o" + std::to_string(i);
    outputs[i].info.path = path(i);
    outputs[i].info.nar_size = 1;
    if (i + 1 < length) outputs[i].info.references = {path(i + 1)};
  }
  return outputs;
}

nix::derivation checked(const std::string& json) {
  nix::derivation drv;
  drv.env["__json"] = json;
  return drv;
}

} // namespace

TEST_CASE("many outputs in a chain are walked, and their cycle is found") {
  auto outputs = chain(10'000);
  CHECK(output_fault(path(99'999), {}, outputs, {}) == std::nullopt);
  outputs.back().info.references = {path(0)};
  const auto fault = output_fault(path(99'999), {}, outputs, {});
  REQUIRE(fault);
  CHECK(fault->kind == failure::output_rejected);
  CHECK(fault->reason.find("cycle detected in build of '/nix/store/") == 0);
}

TEST_CASE("a closure's size counts what is not registered yet, each path once") {
  auto outputs = chain(3);
  outputs[2].info.references = {path(10), path(2)};
  std::vector<path_info> inputs(2);
  inputs[0].path = path(10);
  inputs[0].nar_size = 100;
  inputs[0].references = {path(10), path(11)};
  inputs[1].path = path(11);
  inputs[1].nar_size = 1'000;
  const auto fault = [&](int limit) {
    return output_fault(path(99),
                        checked(R"({"outputChecks": {"o0": {"maxClosureSize": )" + std::to_string(limit) + "}}}"),
                        outputs, inputs);
  };
  CHECK(fault(1'103) == std::nullopt);
  REQUIRE(fault(1'102));
  CHECK(fault(1'102)->kind == failure::output_limit);
  CHECK(fault(1'102)->reason ==
        "closure of path '" + path(0).to_string() + "' is too large at 1103 bytes; limit is 1102 bytes");
}

TEST_CASE("checks that mean nothing reject the outputs instead of being passed over") {
  for (const char* wrong :
       {R"({"outputChecks": {"o0": []}})", R"({"outputChecks": {"o0": {"maxSize": -1}}})",
        R"({"outputChecks": {"o0": {"maxSize": "1"}}})", R"({"outputChecks": {"o0": {"maxClosureSize": 1.5}}})",
        R"({"outputChecks": {"o0": {"allowedReferences": "out"}}})",
        R"({"outputChecks": {"o0": {"disallowedRequisites": [1]}}})", "[]"}) {
    INFO(wrong);
    CHECK(output_fault(path(99), checked(wrong), chain(1), {}));
  }
}
