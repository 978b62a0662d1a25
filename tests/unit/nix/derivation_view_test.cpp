#include "fixtures.hpp"
#include "nix/derivation_view.hpp"
#include "tests/support/seed.hpp"

#include <random>

using namespace coppice::nix;
using namespace coppice::nix::test;

namespace {

/// Whether the view reads the text exactly if parse_derivation reads it and would write it so, and finds the same.
void check_alike(const std::string& text, const std::string& name) {
  INFO(text);
  const auto parsed = parse_derivation(text, name);
  const auto view = derivation_view::read(text, name);
  REQUIRE(view.has_value() == (parsed && print_derivation(*parsed) == text));
  if (!view) return;
  CHECK(view->text() == text);
  CHECK(view->path() == derivation_path(*parsed));
  CHECK(view->head().name == parsed->name);
  CHECK(view->head().outputs == parsed->outputs);
  CHECK(view->head().system == parsed->system);
  CHECK(view->head().builder == parsed->builder);
  REQUIRE(view->inputs().size() == parsed->input_drvs.size());
  auto input = parsed->input_drvs.begin();
  for (const auto& [base_name, wanted] : view->inputs()) {
    CHECK(base_name == input->first.base_name());
    std::set<std::string> names;
    if (for_each_wanted(wanted, [&](std::string_view one) { names.emplace(one); })) CHECK(names == input->second);
    ++input;
  }
  REQUIRE(view->sources().size() == parsed->input_srcs.size());
  CHECK(std::equal(view->sources().begin(), view->sources().end(), parsed->input_srcs.begin(),
                   [](std::string_view a, const store_path& b) { return a == b.base_name(); }));
  for (const auto& [key, value] : parsed->env) {
    if (key.find_first_of("\"\\\n\r\t") == key.npos) CHECK(view->variable(key) == value);
    if (parsed->outputs.contains(key)) CHECK(view->head().env.at(key) == value);
  }
  CHECK_FALSE(view->variable("no such variable"));
}

struct named_text {
  std::string text, name;
};

std::vector<named_text> all_texts() {
  std::vector<named_text> all;
  for (const auto* folder :
       {"generated/drv", "from-nix/derivation", "from-nix/derivation/ia", "from-nix/derivation/ca"})
    for (const auto& file : files(folder, ".drv")) {
      const auto at = store_path::from_base_name(file.filename().string());
      all.push_back({read(file), at ? std::string{derivation_name(*at)} : file.stem().string()});
    }
  REQUIRE(all.size() > 60);
  return all;
}

} // namespace

TEST_CASE("a view of a .drv file holds what the parsed derivation holds") {
  for (const auto& [text, name] : all_texts())
    check_alike(text, name);
}

TEST_CASE("a view reads a damaged .drv file only if it is still as Nix would write it") {
  const auto seed = coppice::test::seed_or(std::random_device{}());
  INFO("COPPICE_SEED=" << seed);
  std::mt19937_64 random{seed};
  auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>{0, n - 1}(random); };
  const std::string pieces[] = {"\"", "\\",   "\\n", "\n", ",",    "(",    ")",      "[",        "]",
                                "()", "\"\"", "x",   "Z",  ".drv", "\\\"", ",\"a\"", "[\"out\"]"};
  for (const auto& [text, name] : all_texts())
    for (int i = 0; i < 40; ++i) {
      auto damaged = text;
      const auto at = below(damaged.size());
      switch (below(4)) {
      case 0: damaged.erase(at, 1 + below(3)); break;
      case 1: damaged.insert(at, pieces[below(std::size(pieces))]); break;
      case 2: damaged.replace(at, 1, pieces[below(std::size(pieces))]); break;
      default: std::swap(damaged[at], damaged[below(damaged.size())]); break;
      }
      check_alike(damaged, name);
    }
}

TEST_CASE("a view wants ascending order by unescaped bytes") {
  const auto text = [](const std::string& env) {
    return R"(Derive([("out","","","")],[],[],"x86_64-linux","/bin/sh",[],[)" + env + "])";
  };
  for (const auto& env :
       {R"(("\n","a"),("A","b"))", R"(("A","b"),("\n","a"))", R"(("a","1"),("a","2"))", R"(("","1"),("a","2"))",
        R"(("","1"),("","2"))", R"(("a\"","1"),("a#","2"))", R"(("a#","1"),("a\"","2"))", R"(("a\\","1"),("a]","2"))"})
    check_alike(text(env), "x");
}

TEST_CASE("the hash modulo of a view is that of the parsed derivation, masked or not") {
  const drv_store all{"generated/drv"};
  modulo_cache cache{all.lookup()};
  for (const auto& file : files("generated/drv", ".drv")) {
    INFO(file);
    const auto at = good(store_path::from_base_name(file.filename().string()));
    const auto& drv = all.at(at);
    const auto text = read(file);
    const auto view = derivation_view::read(text, drv.name);
    REQUIRE(view);
    std::vector<modulo> hashes;
    for (const auto& input : view->inputs())
      hashes.push_back(good(cache.of(good(store_path::from_base_name(input.base_name)))));
    std::vector<const modulo*> inputs;
    for (const auto& hash : hashes)
      inputs.push_back(&hash);
    CHECK(good(hash_modulo(*view, inputs, true)) == good(cache.masked(drv)));
    CHECK(good(hash_modulo(*view, inputs, false)) == good(cache.of(at)));
    good(verify_output_paths(view->head(), good(cache.masked(drv))));
  }
}

TEST_CASE("inputs of a view with equal hashes count as one that is wanted for the outputs of all") {
  const auto input = [](char digit, const std::string& wanted) {
    return "(\"/nix/store/" + std::string(32, digit) + "-x.drv\"," + wanted + ")";
  };
  const std::string before = R"(Derive([("out","","","")],)", after = R"(,[],"x86_64-linux","/bin/sh",[],[]))";
  const auto text = before + "[" + input('0', R"(["dev","out"])") + "," + input('1', R"(["lib"])") + "," +
                    input('2', R"(["bin","out"])") + "]" + after;
  const auto view = derivation_view::read(text, "x");
  REQUIRE(view);
  const modulo one{sha256("one"), false}, other{sha256("other"), false};
  const modulo* inputs[] = {&one, &other, &one};
  std::vector<std::string> lists{"(\"" + base16_encode(one.digest) + R"(",["bin","dev","out"]))",
                                 "(\"" + base16_encode(other.digest) + R"(",["lib"]))"};
  std::sort(lists.begin(), lists.end());
  CHECK(good(hash_modulo(*view, inputs, false)).digest ==
        sha256(before + "[" + lists[0] + "," + lists[1] + "]" + after));
}
