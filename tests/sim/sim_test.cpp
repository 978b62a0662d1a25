#include "tests/sim/simulation.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <sstream>

using namespace coppice;
using namespace coppice::sim;

namespace {

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

std::string text_of(const std::vector<std::string>& lines) {
  std::string text;
  for (auto& line : lines)
    text += "  " + line + "\n";
  return text;
}

} // namespace

TEST_CASE("any seed: whatever happens, no promise is broken and every request ends") {
  const auto one = number_of("COPPICE_SIM_SEED", 0);
  const auto first = one ? one : number_of("COPPICE_SIM_FIRST", 1);
  const auto last = one ? one : first + number_of("COPPICE_SIM_SEEDS", 2'000) - 1;
  outcome sum;
  std::size_t broken = 0;
  const auto began = std::chrono::steady_clock::now();
  for (auto seed = first; seed <= last && broken < 20; ++seed) {
    const auto o = simulate({seed, true, mutant::none, {}, one != 0});
    INFO(replay_command(seed) << "\n" << text_of(o.violations));
    CHECK(o.violations.empty());
    broken += o.violations.empty() ? 0 : 1;
    sum.transactions += o.transactions;
    sum.changes += o.changes;
    sum.builds += o.builds;
    sum.carried += o.carried;
    sum.lost += o.lost;
    sum.repeated += o.repeated;
    sum.lasted += o.lasted;
    for (std::size_t i = 0; i < faults_max; ++i)
      sum.faults[i] += o.faults[i];
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::string faults;
  for (std::size_t i = 0; i < faults_max; ++i)
    faults += fmt::format(" {}={}", to_string(static_cast<fault>(i)), sum.faults[i]);
  std::cout << fmt::format(
      "seeds {} to {} in {:.1f} s: {:.0f} virtual hours, {} transactions, {} changed rows, {} builds, "
      "{} words ({} lost, {} twice), faults:{}\n",
      first, last, took.count(), std::chrono::duration<double>(sum.lasted).count() / 3600, sum.transactions,
      sum.changes, sum.builds, sum.carried, sum.lost, sum.repeated, faults);
}

TEST_CASE("a seed plays out the same each time") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const auto a = simulate({seed}), b = simulate({seed});
    CAPTURE(seed);
    CHECK(a.hash == b.hash);
    CHECK(a.transactions == b.transactions);
    CHECK(a.results == b.results);
  }
}

TEST_CASE("another seed plays out otherwise") {
  CHECK(simulate({1}).hash != simulate({1 + workloads_max}).hash);
}

namespace {

/// What clients were told, but for those that wanted no more in one of two runs: whether a client withdraws before its
/// answer comes is a matter of time.
std::string told(const std::string& results, const std::string& other) {
  std::string out, client;
  bool left = false;
  std::istringstream lines{results};
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("client")) {
      client = line.substr(0, line.find(' '));
      const auto gone = client + " wanted no more\n";
      left = results.find(gone) != std::string::npos || other.find(gone) != std::string::npos;
    }
    if (!left) out += line + "\n";
  }
  return out;
}

} // namespace

TEST_CASE("what clients are told is the same whether anything failed or not") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const auto suffered = simulate({seed}), twin = simulate({seed, false});
    INFO(replay_command(seed) << "\n" << text_of(twin.violations));
    CHECK(twin.violations.empty());
    CHECK(told(suffered.results, twin.results) == told(twin.results, suffered.results));
  }
}
