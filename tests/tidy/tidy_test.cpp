#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

/// The rules of the source tree that no compiler checks. Each test lists its offenders as "file:line: text".
namespace {

namespace fs = std::filesystem;

const fs::path root{COPPICE_SOURCE_DIR};

/// The folders of the product, leftmost first: each may include itself and what stands left of it.
constexpr std::array<std::string_view, 6> folders{"nix", "messages", "runtime", "store", "actors", "apps"};

struct source_file {
  std::string path; ///< relative to the top, with '/'
  std::vector<std::string> lines;

  bool in(std::string_view folder) const { return path.starts_with(std::string{folder} + "/"); }
  bool is_header() const { return path.ends_with(".hpp"); }
  bool is_cpp() const { return is_header() || path.ends_with(".cpp"); }
};

/// What git or a build puts at the top, and data of others: not ours to judge.
bool is_skipped(const std::string& path) {
  static const std::regex skipped{R"(\.git|\.cache|build(-.*)?|result(-.*)?|compile_commands\.json|tests/data)"};
  return std::regex_match(path, skipped);
}

std::vector<source_file> read_tree() {
  std::vector<source_file> files;
  for (auto it = fs::recursive_directory_iterator{root}; it != fs::recursive_directory_iterator{}; ++it) {
    auto path = it->path().lexically_relative(root).generic_string();
    if (is_skipped(path)) {
      it.disable_recursion_pending();
      continue;
    }
    if (!it->is_regular_file()) continue;
    source_file file{path, {}};
    std::ifstream in{it->path(), std::ios::binary};
    for (std::string line; std::getline(in, line);)
      file.lines.push_back(line);
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(), [](auto& a, auto& b) { return a.path < b.path; });
  return files;
}

const std::vector<source_file>& tree() {
  static const auto files = read_tree();
  return files;
}

using offenders = std::vector<std::string>;
using file_rule = std::function<bool(const source_file&)>;

/// Lines that match `pattern` in the files that `applies` selects.
offenders grep(const file_rule& applies, const std::regex& pattern) {
  offenders found;
  for (auto& file : tree()) {
    if (!applies(file)) continue;
    for (std::size_t i = 0; i < file.lines.size(); ++i)
      if (std::regex_search(file.lines[i], pattern))
        found.push_back(file.path + ":" + std::to_string(i + 1) + ": " + file.lines[i]);
  }
  return found;
}

/// Calls `judge(file, included)` for each quoted include of the product's folders; true makes it an offender.
offenders includes(const std::function<bool(const source_file&, const std::string&)>& judge) {
  static const std::regex include{R"(^\s*#\s*include\s*\"([^\"]+)\")"};
  offenders found;
  for (auto& file : tree()) {
    if (!file.is_cpp() || std::none_of(folders.begin(), folders.end(), [&](auto f) { return file.in(f); })) continue;
    for (std::size_t i = 0; i < file.lines.size(); ++i)
      if (std::smatch m; std::regex_search(file.lines[i], m, include) && judge(file, m[1]))
        found.push_back(file.path + ":" + std::to_string(i + 1) + ": " + file.lines[i]);
  }
  return found;
}

/// "actors/plan/graph.hpp" -> {"actors", "plan", "graph.hpp"}
std::vector<std::string> components(const std::string& path) {
  std::vector<std::string> parts;
  for (auto& part : fs::path{path})
    parts.push_back(part.string());
  return parts;
}

/// Where a folder stands in the row; folders.size() if it is not of the product.
std::size_t rank(const std::string& path) {
  return static_cast<std::size_t>(std::find(folders.begin(), folders.end(), components(path).front()) -
                                  folders.begin());
}

void none(const offenders& found) {
  std::string all;
  for (auto& line : found)
    all += line + "\n";
  INFO(all);
  CHECK(found.empty());
}

bool starts_with_any(const std::string& path, const std::map<std::string, std::string>& allowed) {
  return std::any_of(allowed.begin(), allowed.end(), [&](auto& entry) { return path.starts_with(entry.first); });
}

} // namespace

TEST_CASE("the source tree is where the test looks for it") {
  for (auto folder : folders)
    CHECK(std::any_of(tree().begin(), tree().end(), [&](auto& file) { return file.in(folder) && file.is_cpp(); }));
}

TEST_CASE("includes point only leftwards: nix, messages, runtime, store, actors, apps") {
  // A name that starts with no folder of the product stands right of all: it would hide where it comes from.
  none(includes([](auto& file, auto& included) { return rank(included) > rank(file.path); }));
}

TEST_CASE("no stage of the pipeline includes a header of another stage") {
  // What lies in actors/ itself is for all stages, and actors/tree.* puts them together.
  none(includes([](auto& file, auto& included) {
    auto from = components(file.path), to = components(included);
    return from.size() == 3 && to.size() == 3 && from[0] == "actors" && to[0] == "actors" && from[1] != to[1];
  }));
}

TEST_CASE("an actor's own files in actors/ know no stage, but for the tree") {
  none(includes([](auto& file, auto& included) {
    return components(file.path).size() == 2 && file.in("actors") && !file.path.starts_with("actors/tree.") &&
           components(included).size() == 3 && included.starts_with("actors/");
  }));
}

TEST_CASE("the formats know neither actors nor sockets") {
  none(
      grep([](auto& file) { return file.in("nix") && file.is_cpp(); }, std::regex{R"(^\s*#\s*include\s*<(caf/|zmq))"}));
}

TEST_CASE("every header has #pragma once") {
  offenders found;
  for (auto& file : tree())
    if (file.is_header() && std::find(file.lines.begin(), file.lines.end(), "#pragma once") == file.lines.end())
      found.push_back(file.path + ":1");
  none(found);
}

TEST_CASE("no header has a using namespace, but for literals in tests") {
  none(grep([](auto& file) { return file.is_header(); },
            std::regex{R"(^using\s+namespace\b(?!\s+std::chrono_literals;))"}));
}

TEST_CASE("<iostream> is for programs: apps, benches and tests") {
  none(grep([](auto& file) { return file.is_cpp() && !file.in("apps") && !file.in("bench") && !file.in("tests"); },
            std::regex{R"(^\s*#\s*include\s*<iostream>)"}));
}

TEST_CASE("the time of day is read through the clock port") {
  const std::map<std::string, std::string> allowed{
      {"runtime/clock", "is the port"},
      {"runtime/log", "stamps lines for people"},
      {"tests/", "may look at both"},
  };
  none(grep([&](auto& file) { return file.is_cpp() && !starts_with_any(file.path, allowed); },
            std::regex{R"(\bsystem_clock\b)"}));
}

TEST_CASE("a catch-all only where a crash becomes a report") {
  const std::map<std::string, std::string> allowed{
      {"runtime/actor.", "a handler's exception becomes the reason that its supervisor sees"},
      {"runtime/supervisor.cpp", "a child that cannot be constructed is a failed start"},
      {"runtime/pool.", "a job's exception goes to whoever posted it; the thread lives on"},
      {"messages/wire.cpp", "whatever the parser throws is a bad message"},
      {"apps/common/console.cpp", "carries the exception of a thread over to main"},
      {"apps/coppiced/main.cpp", "last words before exit"},
      {"apps/coppice/main.cpp", "last words before exit"},
      {"apps/coppice-admin/main.cpp", "last words before exit"},
  };
  none(grep([&](auto& file) { return file.is_cpp() && !starts_with_any(file.path, allowed); },
            std::regex{R"(^[^/]*\bcatch\s*\(\s*\.\.\.\s*\))"}));
}

TEST_CASE("what CAF offers and trips over is not used") {
  // docs/decisions/0012-traps-of-caf.md
  struct trap {
    const char* numbers;
    const char* pattern;
    std::map<std::string, std::string> allowed;
  };
  const std::map<std::string, std::string> main_thread{
      {"runtime/tree.cpp", "main waits for the end of the tree"},
      {"apps/coppiced/node.cpp", "main waits for the start of the tree"},
      {"bench/", "measures from outside"},
  };
  const std::map<std::string, std::string> rival{{"bench/supervision.cpp", "measures CAF's own ways beside ours"}};
  auto asks = main_thread;
  asks.emplace("runtime/actor.hpp", "call() is where it is used rightly");
  asks.emplace("actors/deliver/cache_server.cpp", "an actor of one question, without a timeout");
  const std::vector<trap> traps{
      {"T1", R"(\bmake_response_promise\b|\b(typed_)?response_promise\b)", {{"runtime/actor.hpp", "rt::reply"}}},
      {"T2", R"(\bstateful_actor\b)", {}},
      {"T5", R"(\bcaf::(anon_)?send_exit\b|->send_exit\()", rival},
      {"T3, T6", R"(\brequest\()", asks},
      {"T9", R"(\bdelayed_(anon_)?send\b)", {{"runtime/actor.hpp", "later()"}}},
      {"T11", R"(\blink_to\b|\bcaf::linked\b)", {}},
      {"T12", R"((\.|->)spawn\()", rival},
      {"T15", R"(\batom_constant\b)", {{"messages/interfaces.hpp", "the one block"}, {"runtime/", "rt_ and sup_"}, {"bench/supervision.cpp", "of its own"}}},
      {"T16", R"(\bdeep_to_string\b)", {}},
      {"T17", R"((\.|->)await\(|\bcaf::skip\b)", {}},
      {"T18", R"(\batom_from_string\b)", {}},
      {"T19", R"(\bcaf::detached\b|\bblocking_actor\b|\bcaf::scoped_actor\b)", main_thread},
      {"T13", R"(\bcaf::aout\b)", {}},
  };
  for (auto& t : traps) {
    INFO(t.numbers);
    none(grep(
        [&](auto& file) {
          return file.is_cpp() && !file.in("tests") && !starts_with_any(file.path, t.allowed) && !file.in("nix");
        },
        std::regex{t.pattern}));
  }
}

TEST_CASE("T8, T20: every actor system shares its queue, and none reads files that lie about") {
  offenders found;
  for (auto& file : tree()) {
    if (!file.is_cpp() || file.in("tests")) continue;
    std::string text;
    for (auto& line : file.lines)
      text += line + "\n";
    if (!std::regex_search(text, std::regex{R"(: (public )?caf::actor_system_config\b)"})) continue;
    if (text.find(R"(set("scheduler.policy", caf::atom("sharing")))") == text.npos || text.find(".parse(") != text.npos)
      found.push_back(file.path);
  }
  none(found);
}

TEST_CASE("T15: no two atoms have the same text") {
  static const std::regex named{R"re(COPPICE_ATOM\(\w+, "(\w+)"\)|caf::atom\("(\w+)"\)>)re"};
  std::set<std::string> seen;
  offenders found;
  for (auto& file : tree())
    for (std::size_t i = 0; file.is_cpp() && !file.in("tests") && i < file.lines.size(); ++i)
      if (std::smatch m; std::regex_search(file.lines[i], m, named) && !seen.insert(m[1].str() + m[2].str()).second)
        found.push_back(file.path + ":" + std::to_string(i + 1) + ": " + file.lines[i]);
  none(found);
  CHECK(seen.size() > 50);
}

TEST_CASE("nothing is left for later in the files, and they name no place outside of the repository") {
  // The words are written apart, so that this file is no offender.
  const std::regex words{"\\b(TO"
                         "DO|FIX"
                         "ME|X"
                         "XX)\\b|\\bsha"
                         "red/|/work"
                         "/(main|sha"
                         "red)\\b"};
  none(grep([](auto&) { return true; }, words));
}

TEST_CASE("every fixture that a test names is there") {
  static const std::regex named{R"re((COPPICE_TEST_DATA\s*"|\bdata[(]")/?([^"]+)"\s*[);,}])re"};
  offenders found;
  for (auto& file : tree())
    for (std::size_t i = 0; file.in("tests") && file.is_cpp() && i < file.lines.size(); ++i)
      for (std::sregex_iterator m{file.lines[i].begin(), file.lines[i].end(), named}, end; m != end; ++m) {
        auto folder = (*m)[1].str().starts_with("data") ? root / "tests/data/nix" : root / "tests/data";
        if (!fs::exists(folder / (*m)[2].str()))
          found.push_back(file.path + ":" + std::to_string(i + 1) + ": " + (*m)[2].str());
      }
  none(found);
}

TEST_CASE("every derivation that the fixtures expect is there") {
  static const std::regex drv{R"re("drvPath": "/nix/store/([^"]+)")re"};
  std::ifstream in{root / "tests/data/nix/generated/expected.json"};
  const std::string text{std::istreambuf_iterator<char>{in}, {}};
  std::size_t seen = 0;
  for (std::sregex_iterator m{text.begin(), text.end(), drv}, end; m != end; ++m, ++seen)
    CHECK(fs::exists(root / "tests/data/nix/generated/drv" / (*m)[1].str()));
  CHECK(seen >= 54);
}

TEST_CASE("every folder of tests is a suite that runs") {
  std::ifstream in{root / "tests/CMakeLists.txt"};
  const std::string text{std::istreambuf_iterator<char>{in}, {}};
  std::set<std::string> suites;
  for (auto& file : tree())
    if (file.in("tests") && file.path.ends_with(".cpp") && !file.in("tests/support") && !file.in("tests/fuzz"))
      suites.insert(fs::path{file.path}.parent_path().lexically_relative("tests").generic_string());
  offenders found;
  for (auto& suite : suites)
    if (!std::regex_search(text, std::regex{R"(coppice_suite\()" + suite + R"([ )])"})) found.push_back(suite);
  none(found);
}

TEST_CASE("every fuzz target runs among the tests") {
  std::ifstream in{root / "tests/fuzz/CMakeLists.txt"};
  const std::string text{std::istreambuf_iterator<char>{in}, {}};
  offenders found;
  for (auto& file : tree())
    if (file.in("tests/fuzz") && file.path.ends_with(".cpp"))
      if (text.find("coppice_fuzz(" + fs::path{file.path}.stem().string() + " ") == text.npos) found.push_back(file.path);
  none(found);
}
