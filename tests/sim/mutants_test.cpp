#include "tests/sim/simulation.hpp"

#include <catch2/catch.hpp>

#include <iostream>

using namespace coppice::sim;

namespace {

/// A broken farm must be told from a sound one by so many seeds.
constexpr std::uint64_t seeds_max = 400;

/// The first seed that finds it; 0 if none does.
std::uint64_t found_by(mutant broken, const std::set<fault>& surely) {
  for (std::uint64_t seed = 1; seed <= seeds_max; ++seed) {
    const auto o = simulate({seed, true, broken, surely});
    if (o.violations.empty()) continue;
    std::cout << fmt::format("{}: seed {}: {}\n", to_string(broken), seed, o.violations.front());
    return seed;
  }
  return 0;
}

void is_found(mutant broken, const std::set<fault>& surely = {}) {
  const auto seed = found_by(broken, surely);
  REQUIRE(seed > 0);
  CHECK(simulate({seed, true, mutant::none, surely}).violations.empty()); // it is the mutant that was found
}

} // namespace

TEST_CASE("a ledger that does not compare tokens is found") {
  is_found(mutant::token_not_compared);
}

TEST_CASE("a ledger that answers before it commits is found") {
  is_found(mutant::answer_before_commit);
}

TEST_CASE("a lock that is reclaimed without a new token is found") {
  is_found(mutant::reclaim_without_token);
}

TEST_CASE("a store that deletes by name, whatever the generation, is found") {
  is_found(mutant::deletion_by_name, {fault::collect});
}
