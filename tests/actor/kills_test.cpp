#include "tests/support/whole_node.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <iostream>
#include <sstream>

using namespace coppice;
using test::whole_node;
using instant = test::world::instant;

namespace {

/// The n-th time that the actor of this path handles such a message, just before or just after it does.
struct moment {
  std::string path, message;
  int nth = 1;
  instant at = instant::before;
  auto operator<=>(const moment&) const = default;
};

std::string to_string(const moment& m) {
  return fmt::format("{} {} {} {}", m.path, m.message, m.nth, m.at == instant::before ? "before" : "after");
}

const std::string root = "/oak";

/// A run, with the kill at one of its moments, if any; gives its moments in their order.
struct twin {
  std::string result;
  std::vector<moment> moments;
  bool killed = false;

  explicit twin(std::uint64_t seed, std::optional<moment> kill = {}) {
    whole_node node{seed};
    std::map<std::pair<std::string, std::string>, int> seen;
    node.w.kills = [&](const std::string& path, const std::string& message, instant at) {
      auto& count = seen[{path, message}];
      if (path == root) return false; // its end is the end of the process
      moments.push_back({path, message, at == instant::before ? ++count : count, at});
      return !killed && (killed = kill == moments.back());
    };
    try {
      result = node.run();
    } catch (const std::exception& e) {
      result = std::string{"the run broke off: "} + e.what() + "\n";
    }
    node.w.kills = nullptr;
  }
};

/// The lines that only one of them has.
std::string difference(const std::string& expected, const std::string& found) {
  auto lines = [](const std::string& text) {
    std::vector<std::string> all;
    std::istringstream in{text};
    for (std::string line; std::getline(in, line);)
      all.push_back(line);
    return all;
  };
  auto a = lines(expected), b = lines(found);
  std::string text;
  for (auto& line : a)
    if (std::find(b.begin(), b.end(), line) == b.end()) text += "  - " + line + "\n";
  for (auto& line : b)
    if (std::find(a.begin(), a.end(), line) == a.end()) text += "  + " + line + "\n";
  return text.empty() ? "  (the same lines in another order)\n" : text;
}

/// Which of the moments this run tries: those of $COPPICE_KILL, all with COPPICE_KILLS=all, else every so many.
std::vector<moment> chosen(const std::vector<moment>& all, std::uint64_t seed) {
  constexpr std::size_t kills_max = 150;
  if (const char* one = std::getenv("COPPICE_KILL")) {
    moment m;
    std::string at;
    std::istringstream{one} >> m.path >> m.message >> m.nth >> at;
    m.at = at == "after" ? instant::after : instant::before;
    return {m};
  }
  const char* which = std::getenv("COPPICE_KILLS");
  const auto stride = which && std::string{which} == "all" ? 1 : all.size() / kills_max + 1;
  std::vector<moment> some;
  for (auto i = seed % stride; i < all.size(); i += stride)
    some.push_back(all[i]);
  return some;
}

} // namespace

TEST_CASE("killing any actor at any message, just before or after its effect, changes no result") {
  const auto seed = test::seed_or(1);
  CAPTURE(seed);
  const twin whole{seed};
  {
    INFO(whole.result);
    REQUIRE(whole.result.starts_with("request succeeded"));
    REQUIRE(whole.result.find("left: ") == std::string::npos);
  }
  const auto kills = chosen(whole.moments, seed);
  WARN(kills.size() << " kills of " << whole.moments.size() << " moments");
  for (auto& m : kills) {
    const twin other{seed, m};
    INFO("COPPICE_SEED=" << seed << " COPPICE_KILL='" << to_string(m) << "' test_actor 'killing any*'\n"
                         << difference(whole.result, other.result));
    CHECK(other.killed);
    CHECK((other.result == whole.result));
  }
}
